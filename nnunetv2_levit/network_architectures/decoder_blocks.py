"""Decoder blocks shared by the networks whose decoder upsamples first and convolves afterwards."""

import torch.nn.functional as F
from torch import Tensor, nn


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to ``size`` with aligned corners; the input itself where it fits already."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class UpsampleConvBlock(nn.Module):
    """Bilinear upsampling, then twice (3x3 convolution without bias, BN, ReLU): (B, C, h, w) -> (B, out, *size)."""

    normalised_layers = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = upsample(x, size)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))
