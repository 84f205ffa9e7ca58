"""Decoder blocks shared by the networks whose decoder upsamples first and convolves afterwards."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.upsampled_convolution import Source, UpsampledConv2d, upsample

__all__ = ["UpsampleConvBlock", "upsample"]


class UpsampleConvBlock(nn.Module):
    """Bilinear upsampling, then twice (3x3 convolution without bias, BN, ReLU): (B, C, h, w) -> (B, out, *size).

    The input may come as several sources that are resized on their own and concatenated; ``in_channels`` then holds
    the channels of each.
    """

    normalised_layers = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int | Sequence[int], out_channels: int) -> None:
        super().__init__()
        source_channels = [in_channels] if isinstance(in_channels, int) else in_channels
        self.conv1 = UpsampledConv2d(source_channels, out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor | Sequence[Source], size: tuple[int, int]) -> Tensor:
        sources = [Source(x)] if isinstance(x, Tensor) else x
        x = self.conv1([Source(source.map, (*source.sizes, size)) for source in sources])
        x = F.relu(self.bn1(x), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)
