"""2D UNETR (after Hatamizadeh et al. 2022), whole and truncated to fewer transformer blocks.

The form of Petitjean, Hasany and Meriaudeau (2023): a ViT-B/16 whose maps are deconvolved to finer scales and decoded
by concatenation, with the image itself at full resolution.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.convolution_blocks import DeconvBlock, DoubleConv
from nnunetv2_levit.network_architectures.grids import Grid, check_blocks, token_grid
from nnunetv2_levit.network_architectures.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_network import PretrainedPart, ViTNetwork

BLOCKS = 12
TAPS = (3, 6, 9)
WIDTH, HEADS = 768, 12
IMAGE_WIDTH = 64
TRUNCATED_WIDTH = 128
TIMM_TAG = "vit_base_patch16_224.orig_in21k"


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
        outputs = [self.seg_layers[0](full)]
        if auxiliary:
            outputs += [self.seg_layers[1](half), self.seg_layers[2](quarter)]
        return outputs


class UNETR2D(ViTNetwork):
    """2D UNETR with ViT-B/16.

    ``forward`` takes (B, in_channels, H, W) and returns logits (B, num_classes, H, W); with ``deep_supervision`` set, a
    list of logits at 1, 1/2 and 1/4 of the resolution.

    Args:
        image_size: height and width in pixels; sets the extent of the position embedding.
        blocks: transformer blocks. With 12 the outputs of blocks 3, 6 and 9 and the normed output of the last are
            decoded; with fewer the normed output of the last alone.
        dropout: of embeddings and MLPs in training.
        auxiliary_heads: adds 1x1 heads for deep supervision (not in the study).
        pretrained: timm tags or files as in ``pretrained_parts``, or None.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)
    name = "2D UNETR"

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: Grid,
        blocks: int = BLOCKS,
        dropout: float = 0.1,
        auxiliary_heads: bool = False,
        pretrained: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, image_size=image_size, auxiliary_heads=auxiliary_heads)
        check_blocks(self.name, blocks, BLOCKS)
        self.truncated = blocks < BLOCKS
        bottom, *widths = self._build_encoders()
        self.vit = ViTEncoder(
            in_channels=in_channels,
            grid=token_grid(image_size, PATCH),
            width=WIDTH,
            heads=HEADS,
            blocks=blocks,
            taps=() if self.truncated else TAPS,
            dropout=dropout,
        )
        # the branch of three steps belongs to the shallowest tap, and to the only map when truncated
        if self.truncated:
            self.branches = nn.ModuleList([deconvolutions(bottom, widths)])
        else:
            self.branches = nn.ModuleList([deconvolutions(WIDTH, widths[:steps]) for steps in (3, 2, 1)])
        self.decoder = PyramidDecoder(
            in_channels=in_channels,
            num_classes=num_classes,
            widths=(bottom, *widths),
            truncated=self.truncated,
            auxiliary_heads=auxiliary_heads,
        )
        self._complete(pretrained)

    def _build_encoders(self) -> tuple[int, int, int, int]:
        """Build what stands beside the transformer; returns the channels of the maps at 1/16, 1/8, 1/4 and 1/2."""
        self.pretrained_parts = (PretrainedPart(TIMM_TAG, {"vit.": ""}),)
        return WIDTH, 512, 256, 128

    def _fuse(self, maps: list[Tensor], image: Tensor) -> list[Tensor]:
        """The maps (coarsest first), joined with those of another encoder where there is one."""
        return maps

    def _decode(self, x: Tensor, *, auxiliary: bool) -> list[Tensor]:
        *taps, last = self.vit(x)
        if self.truncated:
            maps = self._fuse([last], x)
            for step in self.branches[0]:
                maps.append(step(maps[-1]))
        else:
            finer = [branch(tap) for branch, tap in zip(self.branches, taps, strict=True)]
            maps = self._fuse([last, *reversed(finer)], x)
        return self.decoder(maps, x, auxiliary=auxiliary)
