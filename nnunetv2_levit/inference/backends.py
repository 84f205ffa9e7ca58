"""What computes logits: a callable for batches of images, one for each fold.

`onnx_backend` has the one for ONNX Runtime; nothing else of the predictor depends on which it is.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from timm.layers import GroupNormAct
from torch import Tensor, nn

from nnunetv2_levit.inference.onednn import with_onednn_linears
from nnunetv2_levit.network_architectures.folding import fold_batch_norm, folded_if_the_same, is_changed_by_hooks
from nnunetv2_levit.network_architectures.layers.depthwise_convolution import DepthwiseConv2d
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import UpsampledConv2d
from nnunetv2_levit.network_architectures.unet2022.window_attention import WindowedMixing

Backend = Callable[[Tensor], Tensor]
"""Maps images (N, C, h, w) to logits (N, K, h, w) on the same device, for any N from 1."""


def memory_format(network: nn.Module) -> torch.memory_format:
    """Channels-last, but not for instance norm, which copies every map to contiguous memory (measured on a CPU)."""
    instance_norm = any(isinstance(module, nn.modules.instancenorm._InstanceNorm) for module in network.modules())
    return torch.contiguous_format if instance_norm else torch.channels_last


# What autocast computes in fp16 anyway, by exact type: a subclass may use its weights otherwise.
HALVED = (
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    DepthwiseConv2d,
    UpsampledConv2d,
    LayerNorm,
    WindowedMixing,
)


def _takes_fp16(module: nn.Module) -> bool:
    if type(module) is GroupNormAct:  # built by `norms_in_autocast_precision`
        return module._fast_norm
    return type(module) in HALVED and not is_changed_by_hooks(module)


def halve_weights(network: nn.Module) -> nn.Module:
    """The network with those weights in fp16 that autocast would copy to fp16 at each call; for use under autocast.

    Everything else, such as batch norm's statistics and LeViT's attention biases, stays in fp32.
    """
    for module in network.modules():
        if _takes_fp16(module):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.half()
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.half())
    return network


class TorchBackend:
    """A network with one fold's weights: an own copy, so that no fold waits for another's weights to be loaded.

    To be called within `precision`, like a network in nnU-Net's predictor.

    Args:
        try_on: images (N, C, h, w) on which batch norm is folded by trial, as the network may be anyone's.
    """

    def __init__(
        self, network: nn.Module, *, device: torch.device, compiled: bool = False, try_on: Tensor | None = None
    ) -> None:
        self.memory_format = memory_format(network)
        folded = fold_batch_norm(network) if try_on is None else folded_if_the_same(network, try_on)
        network = folded.to(device).to(memory_format=self.memory_format)
        if device.type == "cuda":
            # of the weights left in fp32 autocast keeps copies for a whole case, if they require gradients
            network = halve_weights(network).requires_grad_()
        elif device.type == "cpu" and not compiled:
            network = with_onednn_linears(network)
        self.network = torch.compile(network) if compiled else network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=self.memory_format))


def precision(device: torch.device) -> AbstractContextManager:
    """nnU-Net's rule: fp16 autocast on a CUDA device, fp32 elsewhere."""
    return torch.autocast("cuda") if device.type == "cuda" else nullcontext()
