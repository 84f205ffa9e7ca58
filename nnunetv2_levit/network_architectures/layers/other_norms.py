"""Other normalisations in the place of a network's batch norms, as options that no paper has."""

from typing import Literal

from timm.models.levit import LinearNorm
from torch import nn

from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm

MapNorm = Literal["batch", "instance", "group"]
TokenNorm = Literal["batch", "layer"]
MAP_NORMS, TOKEN_NORMS = ("batch", "instance", "group"), ("batch", "layer")
GROUPS = 8


def _replacement(norm: nn.BatchNorm2d, kind: MapNorm) -> nn.Module:
    channels = norm.num_features
    other: nn.InstanceNorm2d | nn.GroupNorm
    other = nn.InstanceNorm2d(channels, affine=True) if kind == "instance" else nn.GroupNorm(GROUPS, channels)
    other.weight, other.bias = norm.weight, norm.bias  # which may start at special values
    return other


def set_norms(network: nn.Module, *, maps: MapNorm, tokens: TokenNorm) -> None:
    """Replace each 2D batch norm by ``maps``, and each of LeViT's batch norms over tokens by ``tokens``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if maps != "batch" and isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _replacement(child, maps))
        if tokens == "layer" and isinstance(module, LinearNorm):
            layer_norm = LayerNorm(module.bn.num_features)
            layer_norm.weight, layer_norm.bias = module.bn.weight, module.bn.bias
            module.add_module("bn", layer_norm)
