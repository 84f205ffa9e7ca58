"""Convolutional blocks that several decoders share."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.upsampled_convolution import Source, UpsampledConv2d


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


class ConvNorm(nn.Module):
    """Convolution with bias and "same" padding, then BN: (B, C, H, W) -> (B, out, H, W).

    Where ``in_channels`` is a sequence, one number for each source, ``forward`` takes these sources: see
    `UpsampledConv2d`.
    """

    normalised_layers = (("conv", "bn"),)

    def __init__(self, in_channels: int | Sequence[int], out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        if isinstance(in_channels, int):
            self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        else:
            self.conv = UpsampledConv2d(in_channels, out_channels, kernel, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor | Sequence[Source]) -> Tensor:
        return self.bn(self.conv(x))


class ResidualDoubleConv(nn.Module):
    """ReLU(3x3 BN ReLU 3x3 BN + 1x1 BN) of sources that are resized and concatenated; all convolutions with bias.

    ``forward`` takes sources of ``source_channels`` channels and returns (B, out, H, W) at the last of their sizes.
    """

    def __init__(self, source_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(source_channels, out_channels, 3)
        self.second = ConvNorm(out_channels, out_channels, 3)
        self.shortcut = ConvNorm(source_channels, out_channels, 1)

    def forward(self, sources: Sequence[Source]) -> Tensor:
        x = self.second(F.relu(self.first(sources), inplace=True))
        return F.relu(x + self.shortcut(sources), inplace=True)
