"""Batch norm and layer scale folded into the convolution or linear layer before them, for inference."""

import copy
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from timm.layers import StdConv2d
from timm.models._features import FeatureListNet
from timm.models.convnext import ConvNeXtBlock
from timm.models.levit import ConvNorm, LinearNorm
from timm.models.res2net import Bottle2neck
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from nnunetv2_levit.network_architectures.layers.upsampled_convolution import UpsampledConv2d

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, UpsampledConv2d)
NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d)

# Which norm follows which layer in blocks that are not ours. Modules of this package say it themselves in a class
# attribute `normalised_layers`. A name alone proves nothing: in pre-activation blocks bn1 comes before conv1.
PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ConvNorm: (("linear", "bn"),),
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    Bottle2neck: (("conv1", "bn1"), ("convs", "bns"), ("conv3", "bn3")),
    ResNet: (("conv1", "bn1"),),
}


def _foldable(layer: nn.Module | None, norm: nn.Module | None) -> bool:
    """Exact types only: a subclass may do more (timm's BatchNormAct2d activates, StdConv2d standardises)."""
    return (
        type(layer) in (*CONVOLUTIONS, nn.Linear)
        and type(norm) in BATCH_NORMS
        and norm.running_var is not None  # without running statistics each batch is normalised by its own
    )


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    return fuse_linear_bn_eval(layer, norm) if isinstance(layer, nn.Linear) else fuse_conv_bn_eval(layer, norm)


def _with_standardised_kernel(convolution: StdConv2d) -> nn.Conv2d:
    """What timm's layer computes from its weight at each call, computed once."""
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
        device="meta",
    )
    kernel = convolution.weight.flatten(1)
    variance, mean = torch.var_mean(kernel, dim=1, correction=0, keepdim=True)
    kernel = (kernel - mean) / (variance + convolution.eps).sqrt()
    plain.weight = nn.Parameter(kernel.view(convolution.weight.shape))
    plain.bias = convolution.bias
    return plain.train(convolution.training)


def _neighbours(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Layers and the norms that follow them, with at most what does nothing in eval mode in between."""
    yield from pairwise(module for module in modules if type(module) not in NOTHING_IN_EVAL)


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    for module in network.modules():
        names = getattr(module, "normalised_layers", PAIRS.get(type(module), ()))
        for names_of_pair in names:
            layer, norm = (getattr(module, name, None) for name in names_of_pair)
            if isinstance(layer, nn.ModuleList):
                yield from zip(layer, norm, strict=True)
            else:
                yield layer, norm
        if type(module).forward is nn.Sequential.forward:
            yield from _neighbours(module)
        if type(module) is FeatureListNet:  # runs its children in order, and returns the outputs of some
            returned = {module[name] for name in module.return_layers}
            yield from (pair for pair in _neighbours(module.values()) if pair[0] not in returned)


def _fold_layer_scale(block: ConvNeXtBlock) -> None:
    """gamma * (W x + b) as (gamma W) x + gamma b."""
    layer = block.mlp.fc2
    layer.weight.mul_(block.gamma[:, None])
    layer.bias.mul_(block.gamma)
    block.gamma = None


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("a folded network takes no other weights: load them into the network that it is a copy of")


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in eval mode, for inference only, in which each batch norm that follows a convolution or a
    linear layer is folded into it, and ConvNeXt's layer scale as well: the same function, up to rounding, with fewer
    kernels.

    What is derived from weights alone is computed once as well: expanded attention biases and packed kernels (the
    modules' ``precompute``), and standardised kernels. Covers this package's networks, timm's LeViT and ResNet blocks,
    nnU-Net's ConvDropoutNormReLU and any sequential module; other norms (instance norm, a batch norm elsewhere) stay as
    they are. The copy takes no other weights: load them into the network and fold again.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    replacements: dict[nn.Module, nn.Module] = {}
    for layer, norm in _pairs(folded):
        if _foldable(layer, norm) and layer not in replacements:
            replacements[layer] = _folded(layer, norm)
            replacements[norm] = nn.Identity()
    for module in folded.modules():
        if type(module) is StdConv2d:  # not StdConv2dSame, whose padding depends on the image
            replacements[module] = _with_standardised_kernel(module)
        if type(module) is LinearNorm and _foldable(module.linear, module.bn):
            replacements[module] = _folded(module.linear, module.bn)  # as a whole: its forward flattens for the norm
    # a module may hold the same child under two names (ConvDropoutNormReLU does): replace it under each
    for parent in list(folded.modules()):
        for name, child in list(parent._modules.items()):
            if child in replacements:
                parent._modules[name] = replacements[child]
    with torch.no_grad():
        for module in folded.modules():
            if type(module) is ConvNeXtBlock and module.gamma is not None and not module.use_conv_mlp:
                _fold_layer_scale(module)
    for module in folded.modules():
        if hasattr(module, "precompute"):
            module.precompute()
    folded.load_state_dict = _refuse
    return folded.requires_grad_(False)
