"""Levels of nnU-Net's U-Net, of its own blocks (dynamic-network-architectures): two 3x3 convolutions with instance norm
and leaky ReLU each. Options put them around or in the place of a paper's convolutions.
"""

import itertools
from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import Grid, crop, spatial_size

UNET_WIDTHS = (32, 64, 128, 256, 512)  # of nnU-Net's levels at strides 1 to 16
UNET_SCALES = (1.0, 0.5, 0.25)  # of the outputs with auxiliary heads


def down_level(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Module:
    """Two convolutions, the first with the stride: (B, C, H, W) -> (B, out, H / stride, W / stride), rounded up."""
    level = StackedConvBlocks(
        2,
        nn.Conv2d,
        in_channels,
        out_channels,
        3,
        stride,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    level.apply(InitWeights_He(1e-2))
    return level


class UpLevel(nn.Module):
    """Transposed 2x2 stride 2 to a skip's width, concatenation with it, two convolutions: maps of the skip's size."""

    def __init__(self, in_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, skip_channels, 2, stride=2)
        self.up.apply(InitWeights_He(1e-2))
        self.convolutions = down_level(2 * skip_channels, skip_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(torch.cat([crop(self.up(x), spatial_size(skip)), skip], dim=1))


class DownLevels(nn.ModuleList):
    """Levels at strides 1, 2, 4, … one after another: (B, C, H, W) -> a map of each, the finest first.

    ``channels`` are the image's and those of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(
            down_level(before, after, stride=1 if index == 0 else 2)
            for index, (before, after) in enumerate(itertools.pairwise(channels))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for level in self:
            x = level(x)
            maps.append(x)
        return maps


class UpLevels(nn.ModuleList):
    """`UpLevel`s from a coarse map up through its skips: a map of each skip's size, the finest first, as are the skips.

    ``channels`` are the skips' and the coarse map's.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(UpLevel(coarse, fine) for fine, coarse in itertools.pairwise(channels))

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = []
        for level, skip in zip(reversed(self), reversed(skips), strict=True):
            x = level(x, skip)
            maps.insert(0, x)
        return maps


class UNetDecoder(nn.Module):
    """Levels of nnU-Net's U-Net from a map of ``width`` channels up to full resolution, with 1x1 heads.

    ``forward`` takes that map, at stride 16, and the skips at strides 1, 2, 4 and 8 and returns logits at full
    resolution, and at 1/2 and 1/4 where auxiliary heads exist and are asked for. With fewer ``skip_widths`` the map is
    at the stride after theirs.
    """

    def __init__(
        self, *, width: int, num_classes: int, auxiliary_heads: bool, skip_widths: Sequence[int] = UNET_WIDTHS[:-1]
    ) -> None:
        super().__init__()
        self.levels = UpLevels([*skip_widths, width])
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        heads = skip_widths[: len(UNET_SCALES) if auxiliary_heads else 1]
        self.seg_layers = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in heads)

    def forward(self, x: Tensor, skips: Sequence[Tensor], image_size: Grid, *, auxiliary: bool) -> list[Tensor]:
        maps = self.levels(x, skips)[: len(UNET_SCALES) if auxiliary else 1]
        return [layer(x) for layer, x in zip(self.seg_layers, maps, strict=False)]
