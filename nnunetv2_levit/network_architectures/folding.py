"""Batch norm and layer scale folded into the convolution or linear layer before them, for inference."""

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from timm.layers import StdConv2d
from timm.models._features import FeatureListNet
from timm.models.convnext import ConvNeXtBlock
from timm.models.levit import ConvNorm, LinearNorm
from timm.models.res2net import Bottle2neck
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
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


Pair = tuple[nn.Module | None, nn.Module | None]
KNOWN_NETWORKS = ("nnunetv2_levit.network_architectures.", "dynamic_network_architectures.architectures.")
"""Modules whose networks are known to keep their function."""
LARGEST_DIFFERENCE = 1e-3  # of a folded network's logits, as a share of the largest logit; rounding makes far less


@runtime_checkable
class Precomputing(Protocol):
    """A module that can keep what it derives from its weights at each call, for a copy whose weights stay."""

    def precompute(self) -> None: ...


def is_changed_by_hooks(module: nn.Module) -> bool:
    """Whether hooks see or change what the module computes; torch's older spectral and weight norm are such hooks."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _foldable(layer: nn.Module | None, norm: nn.Module | None) -> bool:
    """Exact types only: a subclass may do more (timm's BatchNormAct2d activates, StdConv2d standardises)."""
    return (
        type(layer) in (*CONVOLUTIONS, nn.Linear)
        and isinstance(norm, _BatchNorm)
        and type(norm) in BATCH_NORMS
        and norm.running_var is not None  # without running statistics each batch is normalised by its own
        and layer is not None
        and not is_changed_by_hooks(layer)
        and not is_changed_by_hooks(norm)
    )


def _folded(layer: Any, norm: Any) -> nn.Module:
    """One layer that does what both do, of those that `_foldable` accepts."""
    return fuse_linear_bn_eval(layer, norm) if isinstance(layer, nn.Linear) else fuse_conv_bn_eval(layer, norm)


def _with_standardised_kernel(convolution: StdConv2d) -> nn.Conv2d:
    """What timm's layer computes from its weight at each call, computed once."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    plain = nn.Conv2d(**{name: getattr(convolution, name) for name in names}, device="meta")
    kernel = convolution.weight.flatten(1)
    variance, mean = torch.var_mean(kernel, dim=1, correction=0, keepdim=True)
    kernel = (kernel - mean) / (variance + convolution.eps).sqrt()
    plain.weight = nn.Parameter(kernel.view(convolution.weight.shape))
    plain.bias = convolution.bias
    return plain.train(convolution.training)


def _neighbours(container: nn.Module) -> Iterator[Pair]:
    """Children that follow each other, with at most what does nothing in eval mode in between."""
    # not children(), which leaves out the second of two places of one module
    yield from pairwise(child for child in container._modules.values() if type(child) not in NOTHING_IN_EVAL)


def _places(network: nn.Module) -> dict[nn.Module | None, Counter[nn.Module]]:
    """The modules that hold each module, and under how many names: one may be used in several places."""
    places: dict[nn.Module | None, Counter[nn.Module]] = defaultdict(Counter)
    for parent in network.modules():
        for child in parent._modules.values():
            places[child][parent] += 1
    return places


def _replacements(pairs: Iterable[Pair]) -> dict[nn.Module, nn.Module]:
    """Folded layers in the place of the layers, and nothing in the place of their norms.

    A layer that meets several norms, or a norm that meets several layers, stays as it is.
    """
    found: dict[tuple[nn.Module, nn.Module], None] = {}  # each pair once, in order
    for layer, norm in pairs:
        if layer is not None and norm is not None and _foldable(layer, norm):
            found[layer, norm] = None
    uses = Counter(module for pair in found for module in pair)
    result: dict[nn.Module, nn.Module] = {}
    for layer, norm in found:
        if uses[layer] == uses[norm] == 1:
            result |= {layer: _folded(layer, norm), norm: nn.Identity()}
    return result


def _pairs(network: nn.Module) -> Iterator[Pair]:
    """Modules of which the second normalises what the first returns, where both are there."""
    places = _places(network)
    for module in network.modules():
        for layer_name, norm_name in getattr(module, "normalised_layers", PAIRS.get(type(module), ())):
            layer, norm = getattr(module, layer_name, None), getattr(module, norm_name, None)
            if isinstance(layer, nn.ModuleList) and isinstance(norm, nn.ModuleList):
                yield from zip(layer, norm, strict=True)
            else:
                yield layer, norm
        if type(module).forward is nn.Sequential.forward:
            yield from (pair for pair in _neighbours(module) if places[pair[0]] == places[pair[1]])
        if type(module) is FeatureListNet:  # runs its children in order, and returns the outputs of some
            returned = {module[name] for name in module.return_layers}
            yield from (pair for pair in _neighbours(module) if pair[0] not in returned)


def _fold_layer_scale(block: ConvNeXtBlock) -> None:
    """gamma * (W x + b) as (gamma W) x + gamma b."""
    layer: Any = block.mlp.fc2
    if block.gamma is not None:
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

    A network may call the children of a sequential module one by one, and use what is between a convolution and its
    norm. That can't be seen here: see `folded_if_the_same`.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    replacements = _replacements(_pairs(folded))
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
            if type(module) is ConvNeXtBlock and not module.use_conv_mlp:
                _fold_layer_scale(module)
    for module in folded.modules():
        if isinstance(module, Precomputing):
            module.precompute()
    folded.load_state_dict = _refuse  # type: ignore[method-assign]
    return folded.requires_grad_(False)


def folded_if_the_same(network: nn.Module, images: Tensor) -> nn.Module:
    """`fold_batch_norm` of a network that may be anyone's; a plain copy where folding changes its logits of ``images``.

    Args:
        network: returns logits, not a list.
        images: (N, C, H, W) on the network's device, anything but zeros.
    """
    folded = fold_batch_norm(network)
    if type(network).__module__.startswith(KNOWN_NETWORKS):
        return folded
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.inference_mode():
        expected = plain(images)
        difference = (folded(images) - expected).abs().max()
    return folded if difference <= LARGEST_DIFFERENCE * expected.abs().max() else plain
