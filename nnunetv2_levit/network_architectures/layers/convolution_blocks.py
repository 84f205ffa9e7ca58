"""Convolutional blocks that several decoders share, written as the papers' figures show them.

Where a block's first layer resizes and concatenates several maps, the block takes the maps and the size; how that is
computed is `upsampled_convolution`'s affair. ``normalised_layers`` says which batch norm follows which layer.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import UpsampledConv2d, resized_sources


class ConvNorm(nn.Module):
    """Convolution with "same" padding, then BN: (B, C, H, W) -> (B, out, H, W)."""

    normalised_layers = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ResizedConvNorm(nn.Module):
    """Bilinear resizing of each map to one size, concatenation, convolution with bias, BN: -> (B, out, *size).

    ``map_channels`` are those of the maps (B, C, h, w), in order.
    """

    normalised_layers = (("conv", "bn"),)

    def __init__(self, map_channels: Sequence[int], out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = UpsampledConv2d(map_channels, out_channels, kernel, bias=True)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Sequence[Tensor], size: Grid) -> Tensor:
        return self.bn(self.conv(resized_sources(maps, size)))


class DoubleConv(nn.Module):
    """Twice (3x3 convolution without bias, BN, ReLU): (B, C, H, W) -> (B, out, H, W)."""

    normalised_layers = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class UpsampleConvBlock(nn.Module):
    """Bilinear resizing of each map to one size, concatenation, then twice (3x3 convolution without bias, BN, ReLU):
    -> (B, out, *size).

    ``map_channels`` are those of the maps (B, C, h, w), in order. A map may pass through further sizes on its way, the
    ``steps`` given for it.
    """

    normalised_layers = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, map_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.conv1 = UpsampledConv2d(map_channels, out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Sequence[Tensor], size: Grid, *, steps: Sequence[Sequence[Grid]] | None = None) -> Tensor:
        x = self.conv1(resized_sources(maps, size, steps=steps))
        x = F.relu(self.bn1(x), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class ResidualDoubleConv(nn.Module):
    """ReLU(3x3 BN ReLU 3x3 BN + 1x1 BN) of maps resized to one size and concatenated: -> (B, out, *size).

    ``map_channels`` are those of the maps (B, C, h, w), in order; all convolutions have a bias.
    """

    def __init__(self, map_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.first = ResizedConvNorm(map_channels, out_channels, 3)
        self.second = ConvNorm(out_channels, out_channels, 3)
        self.shortcut = ResizedConvNorm(map_channels, out_channels, 1)

    def forward(self, maps: Sequence[Tensor], size: Grid) -> Tensor:
        x = self.second(F.relu(self.first(maps, size), inplace=True))
        return F.relu(x + self.shortcut(maps, size), inplace=True)


class DeconvBlock(nn.Module):
    """Transposed 2x2 convolution of stride 2, 3x3 convolution without bias, BN, ReLU: doubles height and width."""

    normalised_layers = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(self.up(x))), inplace=True)
