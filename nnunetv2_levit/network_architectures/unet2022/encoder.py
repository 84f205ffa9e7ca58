"""The encoder of UNet-2022: stem, four stages, downsampling between them (Guo et al. 2022, sections 3.3 and 3.4)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import halvings
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm, norm_channels
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_WIDTHS, DownLevels

FINE_WIDTHS = UNET_WIDTHS[:3]  # of nnU-Net's levels at strides 1 to 4


def stem_widths(width: int, stem_stride: int) -> list[int]:
    """Channels of the stem's blocks, the last as wide as the first stage."""
    return [width // 2**step for step in reversed(range(halvings(stem_stride)))]


class StemBlock(nn.Module):
    """3x3 stride 2, GELU, LN, 3x3, GELU, LN; the stem's last block omits its final GELU and LN."""

    def __init__(self, in_channels: int, out_channels: int, *, last: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm1 = LayerNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = None if last else LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(norm_channels(self.norm1, F.gelu(self.conv1(x))))
        return x if self.norm2 is None else norm_channels(self.norm2, F.gelu(x))


class Downsampling(nn.Module):
    """GELU, LN, 3x3 stride 2, doubling the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.reduction = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(norm_channels(self.norm, F.gelu(x)))


class Encoder(nn.Module):
    """Stem and four stages: (B, C, H, W) -> layer-normed outputs of the four stages, finest first.

    With ``unet_levels`` nnU-Net's levels at strides 1, 2 and 4 are the stem, their maps come before the stages', and
    ``width`` is that of the first stage, at stride 8.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        stem_stride: int,
        stages: Sequence[Sequence[nn.Module]],
        unet_levels: bool = False,
    ) -> None:
        super().__init__()
        self.levels = DownLevels([in_channels, *FINE_WIDTHS]) if unet_levels else None
        if unet_levels:
            self.stem = nn.Sequential(nn.Conv2d(FINE_WIDTHS[-1], width, 3, stride=2, padding=1))
        else:
            channels = [in_channels, *stem_widths(width, stem_stride)]
            last = len(channels) - 2
            self.stem = nn.Sequential(
                *(StemBlock(channels[i], channels[i + 1], last=i == last) for i in range(last + 1))
            )
        self.stem_norm = LayerNorm(width)
        self.stages = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages])
        widths = [width * 2**index for index in range(len(stages))]
        self.downsamplings = nn.ModuleList([Downsampling(w) for w in widths[:-1]])
        self.norms = nn.ModuleList([LayerNorm(w) for w in widths])

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        if self.levels is not None:
            outputs = self.levels(x)
            x = outputs[-1]
        x = norm_channels(self.stem_norm, self.stem(x))
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index > 0:
                x = self.downsamplings[index - 1](x)
            x = stage(x)
            outputs.append(norm_channels(norm, x))
        return outputs
