"""TransUNet's convolutional encoder: ResNet with weight-standardised convolutions and group norm, from timm's blocks.

The names are those of timm's ``vit_base_r50_s16_224`` so that its weights fit. Its numbers differ from timm's: padding
is symmetric here, the max pool has none, and the norm of a projection has as many groups as channels.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import Bottleneck, DownsampleConv
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import halved, pad, spatial_size
from nnunetv2_levit.network_architectures.layers.layer_norm import norms_in_autocast_precision

DEPTHS, WIDTHS, STEM_WIDTH = (3, 4, 9), (256, 512, 1024), 64

_convolution = partial(StdConv2d, eps=1e-5)
_norm = partial(GroupNormAct, num_groups=32, eps=1e-6)


def _channel_norm(channels: int, **options: Any) -> nn.Module:
    return GroupNormAct(channels, num_groups=channels, eps=1e-5, **options)


def _projection(in_channels: int, out_channels: int, *, norm_layer: Any, **options: Any) -> nn.Module:
    return DownsampleConv(in_channels, out_channels, norm_layer=_channel_norm, **options)


_bottleneck = partial(Bottleneck, conv_layer=_convolution, norm_layer=_norm)


class ResNetV2Encoder(nn.Module):
    """(B, C, H, W) with H and W multiples of 16 -> maps of 64, 256, 512 and 1024 channels at 1/2, 1/4, 1/8 and 1/16."""

    @norms_in_autocast_precision()
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(conv=_convolution(in_channels, STEM_WIDTH, 7, stride=2), norm=_norm(STEM_WIDTH))
        )
        self.stages = nn.ModuleList()
        for index, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            before = STEM_WIDTH if index == 0 else WIDTHS[index - 1]
            first = _bottleneck(before, width, stride=1 if index == 0 else 2, proj_layer=_projection)
            others = (_bottleneck(width, width) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(first, *others))))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = [x]
        x = F.max_pool2d(x, 3, stride=2)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            skip = x
            if index == 0:
                # the pool without padding loses a row and a column; only the skip gets them back, as zeros
                skip = pad(x, halved(spatial_size(maps[0])))
            maps.append(skip)
        return maps
