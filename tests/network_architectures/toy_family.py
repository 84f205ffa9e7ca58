"""A family as a newcomer adds it: an encoder, a decoder and a table of sizes; nothing else in the package changes."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from nnunetv2_levit.network_architectures.base import SegmentationNetwork, check_choice
from nnunetv2_levit.network_architectures.family import Family
from nnunetv2_levit.network_architectures.layers.convolution_blocks import DoubleConv, UpsampleConvBlock
from nnunetv2_levit.network_architectures.layers.grids import spatial_size
from nnunetv2_levit.trainers.families import Family as TrainerFamily
from nnunetv2_levit.trainers.recipe import Recipe

WIDTHS = {"small": (8, 16), "large": (16, 32)}  # at 1 and 1/2 of the resolution


class Encoder(nn.Module):
    """(B, C, H, W) -> maps at 1 and 1/2."""

    def __init__(self, in_channels, widths):
        super().__init__()
        self.fine, self.coarse = DoubleConv(in_channels, widths[0]), DoubleConv(widths[0], widths[1])

    def forward(self, images):
        fine = self.fine(images)
        return fine, self.coarse(F.max_pool2d(fine, 2))


class Decoder(nn.Module):
    """Upsample, concatenate, convolve; a head at 1, and one at 1/2 for deep supervision."""

    def __init__(self, widths, num_classes, auxiliary_heads):
        super().__init__()
        self.up = UpsampleConvBlock([widths[1], widths[0]], widths[0])
        heads = widths if auxiliary_heads else widths[:1]
        self.seg_layers = nn.ModuleList([nn.Conv2d(width, num_classes, 1) for width in heads])

    def forward(self, maps, image_size, *, auxiliary):
        fine, coarse = maps
        assert spatial_size(fine) == image_size
        decoded = self.up([coarse, fine], image_size)
        inputs = [decoded, coarse] if auxiliary else [decoded]
        return [layer(x) for layer, x in zip(self.seg_layers, inputs, strict=False)]


class Toy(SegmentationNetwork):
    """Its own keyword is ``size``; all others are every network's."""

    deep_supervision_scales = (1.0, 0.5)
    size_multiple = 2

    def __init__(self, *, size, **shared):
        super().__init__(**shared)
        check_choice("Toy size", size, WIDTHS)
        self.encoder = Encoder(self.in_channels, WIDTHS[size])
        self.decoder = Decoder(WIDTHS[size], self.num_classes, self.auxiliary_heads)
        self._complete()


FAMILY = Family(
    networks={f"toy_{size}": partial(Toy, size=size) for size in WIDTHS}, smallest=("toy_small",), others="wider"
)

TRAINERS = TrainerFamily(
    name="Toy",
    summary="a toy of another package",
    sizes={size: f"toy_{size}" for size in WIDTHS},
    default_size="small",
    recipe=Recipe(),
    options=(),
)
