"""What computes logits: a callable for batches of images, one for each fold.

`onnx_backend` has the one for ONNX Runtime; nothing else of the predictor depends on which it is.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.folding import fold_batch_norm

Backend = Callable[[Tensor], Tensor]
"""Maps images (N, C, h, w) to logits (N, K, h, w) on the same device, for any N from 1."""


def memory_format(network: nn.Module) -> torch.memory_format:
    """Channels-last, but not for instance norm, which copies every map to contiguous memory (measured on a CPU)."""
    instance_norm = any(isinstance(module, nn.modules.instancenorm._InstanceNorm) for module in network.modules())
    return torch.contiguous_format if instance_norm else torch.channels_last


class TorchBackend:
    """A network with one fold's weights: an own copy, so that no fold waits for another's weights to be loaded."""

    def __init__(self, network: nn.Module, *, device: torch.device, compiled: bool = False) -> None:
        self.memory_format = memory_format(network)
        network = fold_batch_norm(network).to(device, memory_format=self.memory_format)
        # autocast keeps the fp16 copies of weights for a whole case, but only of weights that require gradients
        network.requires_grad_(device.type == "cuda")
        self.network = torch.compile(network) if compiled else network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=self.memory_format))


def precision(device: torch.device) -> AbstractContextManager:
    """nnU-Net's rule: fp16 autocast on a CUDA device, fp32 elsewhere."""
    return torch.autocast("cuda") if device.type == "cuda" else nullcontext()
