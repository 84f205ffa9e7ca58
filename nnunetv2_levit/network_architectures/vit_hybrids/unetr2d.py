"""2D UNETR (after Hatamizadeh et al. 2022), whole and truncated to fewer transformer blocks.

The form of Petitjean, Hasany and Meriaudeau (2023): a ViT-B/16 whose maps are deconvolved to finer scales and decoded
by concatenation, with the image itself at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.base import check_blocks
from nnunetv2_levit.network_architectures.layers.convolution_blocks import DeconvBlock, DoubleConv
from nnunetv2_levit.network_architectures.layers.grids import spatial_size, token_grid
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_WIDTHS, DownLevels, UNetDecoder
from nnunetv2_levit.network_architectures.pretrained import PretrainedPart
from nnunetv2_levit.network_architectures.vit_hybrids.cnn_encoder import CNN_NAMES, STRIDES, build_cnn
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import BLOCKS, CNN, UNETR2D_TAG
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_hybrids.vit_network import VIT_NAMES, ViTNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.base import SharedArguments

    class PyramidArguments(SharedArguments, total=False):
        """Keywords of `PyramidNetwork` that 2D UNETR and 2D CATS hand on."""

        blocks: int
        dropout: float
        drop_path: float
        layer_scale: float | None
        conv_stem: bool
        unet_levels: bool


TAPS = (3, 6, 9)
WIDTH, HEADS = 768, 12
WIDTHS_ALONE = (WIDTH, 512, 256, 128)  # of the maps at 1/16, 1/8, 1/4 and 1/2 without a CNN
IMAGE_WIDTH = 64
TRUNCATED_WIDTH = 128


def deconvolutions(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    """One doubling of height and width for each of ``widths``."""
    channels = [in_channels, *widths]
    return nn.Sequential(*(DeconvBlock(a, b) for a, b in pairwise(channels)))


class PyramidDecoder(nn.Module):
    """From maps at 1/16, 1/8, 1/4 and 1/2 (coarsest first) and the padded image to logits.

    Each level is a transposed convolution, concatenation and two convolutions; the image joins at full resolution.
    Truncated, only the map at 1/2 is decoded. Returns logits at full resolution, and at 1/2 and 1/4 where auxiliary
    heads exist and are asked for.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        widths: tuple[int, int, int, int],
        truncated: bool,
        auxiliary_heads: bool,
    ) -> None:
        super().__init__()
        w16, w8, w4, w2 = widths
        self.truncated = truncated
        half_width = TRUNCATED_WIDTH if truncated else w2
        if not truncated:
            self.ups = nn.ModuleList(
                [nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in ((w16, w8), (w8, w4), (w4, w2))]
            )
            self.convs = nn.ModuleList([DoubleConv(2 * w8, w8), DoubleConv(2 * w4, w4)])
        self.half_conv = DoubleConv(w2 if truncated else 2 * w2, half_width)
        self.image_up = nn.ConvTranspose2d(half_width, IMAGE_WIDTH, 2, stride=2)
        self.image_conv = DoubleConv(in_channels, IMAGE_WIDTH)
        self.image_fusion = DoubleConv(2 * IMAGE_WIDTH, IMAGE_WIDTH)
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(IMAGE_WIDTH, num_classes, 3, padding=1)])
        if auxiliary_heads:
            self.seg_layers.extend([nn.Conv2d(half_width, num_classes, 1), nn.Conv2d(w4, num_classes, 1)])

    def forward(self, maps: list[Tensor], image: Tensor, *, auxiliary: bool) -> list[Tensor]:
        bottom, eighth, quarter, half = maps
        if not self.truncated:
            eighth = self.convs[0](torch.cat([eighth, self.ups[0](bottom)], dim=1))
            quarter = self.convs[1](torch.cat([quarter, self.ups[1](eighth)], dim=1))
            half = torch.cat([half, self.ups[2](quarter)], dim=1)
        half = self.half_conv(half)
        full = self.image_fusion(torch.cat([self.image_conv(image), self.image_up(half)], dim=1))
        inputs = [full, half, quarter] if auxiliary else [full]
        return [layer(x) for layer, x in zip(self.seg_layers, inputs, strict=False)]


class PyramidNetwork(ViTNetwork):
    """ViT-B/16 whose maps are deconvolved to 1/16, 1/8, 1/4 and 1/2, added to those of a CNN where there is one, and
    decoded; auxiliary heads at 1/2 and 1/4 are not in the study.

    Args:
        backbone: the CNN, None for none.
        blocks: transformer blocks. With 12 the outputs of blocks 3, 6 and 9 and the normed output of the last are
            decoded; with fewer the normed output of the last alone, and of a CNN's maps the deepest.
        dropout: of embeddings and MLPs in training.
        drop_path, layer_scale, conv_stem: of the transformer, see `ViTEncoder`; not in the study.
        unet_levels: nnU-Net's levels (32 to 512 channels at strides 1 to 16) in the place of the CNN and the decoder.
            Their maps at strides 1 to 8 are skips, with the taps' maps added; without a CNN there is no level at 16.
            Not in the study.
        shared: see `SegmentationNetwork`; ``pretrained`` takes the CNN's weights, where there is one, and the
            transformer's.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)
    title: ClassVar[str]

    def __init__(
        self,
        *,
        backbone: CNN | None,
        blocks: int = BLOCKS,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        conv_stem: bool = False,
        unet_levels: bool = False,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(**shared)
        check_blocks(self.title, blocks, BLOCKS)
        self.truncated = blocks < BLOCKS
        self.pretrained_parts = (PretrainedPart(UNETR2D_TAG, (VIT_NAMES,)),)
        widths = WIDTHS_ALONE
        self.has_cnn = backbone is not None
        self.levels: DownLevels | None = None
        if unet_levels:
            self.pretrained_parts = ()
            self.levels = DownLevels([self.in_channels, *(UNET_WIDTHS if self.has_cnn else UNET_WIDTHS[:-1])])
            _, w2, w4, w8, w16 = UNET_WIDTHS
            widths = w16 if self.has_cnn else WIDTH, w8, w4, w2
        elif backbone is not None:
            self.pretrained_parts = (PretrainedPart(backbone.timm_tag, CNN_NAMES), *self.pretrained_parts)
            w2, w4, w8, w16 = backbone.widths
            widths = w16, w8, w4, w2
            self.cnn = build_cnn(backbone, in_channels=self.in_channels, strides=STRIDES)
        if self.has_cnn:
            self.bottleneck = DoubleConv(WIDTH, widths[0])
        self.vit = ViTEncoder(
            in_channels=self.in_channels,
            grid=token_grid(self.image_size, PATCH),
            width=WIDTH,
            heads=HEADS,
            blocks=blocks,
            taps=() if self.truncated else TAPS,
            dropout=dropout,
            drop_path=drop_path,
            layer_scale=layer_scale,
            conv_stem=conv_stem,
        )
        bottom, *finer = widths
        # the branch of three steps belongs to the shallowest tap, and to the only map when truncated
        if not self.truncated:
            self.branches = nn.ModuleList([deconvolutions(WIDTH, finer[:steps]) for steps in (3, 2, 1)])
        elif not unet_levels:
            self.branches = nn.ModuleList([deconvolutions(bottom, finer)])
        self.decoder: nn.Module
        if unet_levels:
            self.decoder = UNetDecoder(width=bottom, num_classes=self.num_classes, auxiliary_heads=self.auxiliary_heads)
        else:
            self.decoder = PyramidDecoder(
                in_channels=self.in_channels,
                num_classes=self.num_classes,
                widths=widths,
                truncated=self.truncated,
                auxiliary_heads=self.auxiliary_heads,
            )
        self._complete()

    def _fused(self, maps: list[Tensor], images: Tensor) -> list[Tensor]:
        """The transformer's maps (coarsest first), the CNN's added to as many as there are."""
        if not self.has_cnn:
            return maps
        convolutional = self.cnn(images)[::-1]
        maps = [self.bottleneck(maps[0]), *maps[1:]]
        return [x + c for x, c in zip(maps, convolutional, strict=False)]

    def _joined(self, levels: list[Tensor], taps: list[Tensor], last: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest map and the skips: nnU-Net's levels, the finest first, with the transformer's maps added."""
        full, *skips = levels
        if self.has_cnn:
            last = self.bottleneck(last) + skips.pop()
        if not self.truncated:
            skips = [skip + branch(tap) for skip, branch, tap in zip(skips, self.branches, taps, strict=True)]
        return last, [full, *skips]

    def _logits(self, images: Tensor, *, auxiliary: bool) -> list[Tensor]:
        *taps, last = self.vit(images)
        if self.levels is not None:
            last, skips = self._joined(self.levels(images), taps, last)
            return self.decoder(last, skips, spatial_size(images), auxiliary=auxiliary)
        if self.truncated:
            maps = self._fused([last], images)
            for step in self.branches[0].children():
                maps.append(step(maps[-1]))
        else:
            finer = [branch(tap) for branch, tap in zip(self.branches, taps, strict=True)]
            maps = self._fused([last, *reversed(finer)], images)
        return self.decoder(maps, images, auxiliary=auxiliary)


class UNETR2D(PyramidNetwork):
    """2D UNETR: a transformer alone. Arguments: see `PyramidNetwork`."""

    title = "2D UNETR"

    def __init__(self, **arguments: Unpack[PyramidArguments]) -> None:
        super().__init__(backbone=None, **arguments)
