"""Levels of nnU-Net's U-Net, of its own blocks (dynamic-network-architectures): two 3x3 convolutions with instance norm
and leaky ReLU each. Options put them around or in the place of a paper's convolutions.
"""

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import crop, spatial_size

FULL_RESOLUTION_WIDTH = 32  # nnU-Net's


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
