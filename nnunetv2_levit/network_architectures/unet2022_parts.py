"""The parts of UNet-2022: window rule, stem, resampling, encoder, decoder (Guo et al. 2022, sections 3.3 and 3.4)."""

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.grids import Grid, halved
from nnunetv2_levit.network_architectures.layer_norm import LayerNorm, norm_channels

SMALLEST_WINDOW = 7  # the paper's smallest


def stage_grids(image_size: Grid, stem_stride: int) -> list[Grid]:
    """Grids of the four stages for an image size in pixels."""
    grid = image_size
    for _ in range(stem_stride.bit_length() - 1):
        grid = halved(grid)
    grids = [grid]
    for _ in range(3):
        grids.append(halved(grids[-1]))
    return grids


def choose_windows(image_size: Grid, stem_stride: int) -> list[Grid]:
    """Windows of the four encoder stages, per axis, by one rule that yields the published lists.

    Let g be the bottleneck's extent, image size / (8 stem stride), rounded up. The third and fourth stage take windows
    of 2g and g: the whole map. The first and second take m g, where m is the smallest of 1, 2 and 4 with m g >= 7 and
    m >= stem stride / 4. Windows then divide every map of a size that is a multiple of 8 stem strides, and none is
    larger than its map.

    224 at stride 4: 7, 7, 14, 7; 320 at stride 4: 10, 10, 20, 10; 512 at stride 8: 16, 16, 16, 8 (the paper's list for
    EM; for ISIC it used 8, 8, 16, 8 at the same size, which ``windows=(8, 8, 16, 8)`` gives).
    """
    grids = stage_grids(image_size, stem_stride)
    per_axis = []
    for axis in (0, 1):
        g = -(-image_size[axis] // (8 * stem_stride))
        m = next((m for m in (1, 2, 4) if m * g >= SMALLEST_WINDOW and m >= stem_stride / 4), 4)
        per_axis.append([min(w, grid[axis]) for w, grid in zip((m * g, m * g, 2 * g, g), grids, strict=True)])
    return list(zip(*per_axis, strict=True))


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


class HeadBlock(nn.Module):
    """Transposed 2x2 stride 2, GELU, LN, 3x3, GELU, LN, halving the channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        out_channels = in_channels // 2
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.norm1 = LayerNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = norm_channels(self.norm1, F.gelu(self.conv1(x)))
        return norm_channels(self.norm2, F.gelu(self.conv2(x)))


class Downsampling(nn.Module):
    """GELU, LN, 3x3 stride 2, doubling the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.reduction = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(norm_channels(self.norm, F.gelu(x)))


class Upsampling(nn.Module):
    """LN, transposed 2x2 stride 2, halving the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.up = nn.ConvTranspose2d(width, width // 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(norm_channels(self.norm, x))


class Encoder(nn.Module):
    """Stem and four stages: (B, C, H, W) -> layer-normed outputs of the four stages, finest first."""

    def __init__(self, *, in_channels: int, width: int, stem_stride: int, stages: list[list[nn.Module]]) -> None:
        super().__init__()
        depth = stem_stride.bit_length() - 1
        channels = [in_channels, *(width >> (depth - 1 - i) for i in range(depth))]
        self.stem = nn.Sequential(*(StemBlock(channels[i], channels[i + 1], last=i == depth - 1) for i in range(depth)))
        self.stem_norm = LayerNorm(width)
        self.stages = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages])
        self.downsamplings = nn.ModuleList([Downsampling(width << i) for i in range(3)])
        self.norms = nn.ModuleList([LayerNorm(width << i) for i in range(4)])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = norm_channels(self.stem_norm, self.stem(x))
        outputs = []
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x)
            outputs.append(norm_channels(norm, x))
            if index < 3:
                x = self.downsamplings[index](x)
        return outputs


class Decoder(nn.Module):
    """Three stages, coarsest first, each after an upsampling and the addition of its skip; one head for each of the
    finest outputs. Returns logits at 1 (and, with auxiliary heads and when asked, 1/2 and 1/4) of the resolution."""

    def __init__(
        self, *, width: int, num_classes: int, stem_stride: int, stages: list[list[nn.Module]], auxiliary_heads: bool
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages])
        self.upsamplings = nn.ModuleList([Upsampling(width << (i + 1)) for i in range(3)])
        head_depth = stem_stride.bit_length() - 3
        head_widths = [width << i for i in range(3 if auxiliary_heads else 1)]
        self.head_blocks = nn.ModuleList(
            [nn.Sequential(*(HeadBlock(w >> i) for i in range(head_depth))) for w in head_widths]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList(
            [nn.ConvTranspose2d(w >> head_depth, num_classes, 4, stride=4) for w in head_widths]
        )

    def forward(self, features: list[Tensor], image_size: Grid, *, auxiliary: bool) -> list[Tensor]:
        x = features[3]
        maps = []
        for index in (2, 1, 0):
            skip = features[index]
            x = self.upsamplings[index](x)[:, :, : skip.shape[2], : skip.shape[3]] + skip
            x = self.stages[index](x)
            maps.insert(0, x)
        outputs = []
        for index, (blocks, layer) in enumerate(zip(self.head_blocks, self.seg_layers, strict=True)):
            if index > 0 and not auxiliary:
                break
            # nnU-Net rounds the sizes of the downsampled targets; the maps here are rounded up
            height, width = (round(side / 2**index) for side in image_size)
            outputs.append(layer(blocks(maps[index]))[:, :, :height, :width])
        return outputs
