"""TransUNet (Chen et al. 2021, arXiv 2102.04306), whole and truncated to fewer transformer blocks.

The truncated forms keep the first blocks and are otherwise the same network (Petitjean, Hasany and Meriaudeau 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.base import check_blocks
from nnunetv2_levit.network_architectures.layers.convolution_blocks import ConvNorm, UpsampleConvBlock
from nnunetv2_levit.network_architectures.layers.grids import Grid, spatial_size, token_grid
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_WIDTHS, DownLevels, UNetDecoder
from nnunetv2_levit.network_architectures.pretrained import PretrainedPart
from nnunetv2_levit.network_architectures.vit_hybrids.resnetv2_encoder import STEM_WIDTH, WIDTHS, ResNetV2Encoder
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import BLOCKS, TRANSUNET_TAG
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_hybrids.vit_network import VIT_NAMES, ViTNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.base import SharedArguments

VIT_WIDTH, HEADS = 768, 12
REDUCED_WIDTH = 512
DECODER_WIDTHS = (256, 128, 64, 16)


class TransUNetDecoder(nn.Module):
    """3x3 to 512, three blocks that upsample, concatenate and convolve, one that upsamples and convolves; 3x3 head.

    ``forward`` takes the transformer's map (stride 16), the skips at 1/2, 1/4 and 1/8 and returns logits at full
    resolution, and at 1/2 and 1/4 where auxiliary heads exist and are asked for.
    """

    def __init__(self, *, width: int, num_classes: int, auxiliary_heads: bool) -> None:
        super().__init__()
        self.reduction = ConvNorm(width, REDUCED_WIDTH, 3, bias=False)
        d8, d4, d2, d1 = DECODER_WIDTHS
        self.blocks = nn.ModuleList(
            [
                UpsampleConvBlock([REDUCED_WIDTH, WIDTHS[1]], d8),
                UpsampleConvBlock([d8, WIDTHS[0]], d4),
                UpsampleConvBlock([d4, STEM_WIDTH], d2),
                UpsampleConvBlock([d2], d1),
            ]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(d1, num_classes, 3, padding=1)])
        if auxiliary_heads:
            self.seg_layers.extend([nn.Conv2d(d2, num_classes, 1), nn.Conv2d(d4, num_classes, 1)])

    def forward(self, x: Tensor, skips: list[Tensor], image_size: Grid, *, auxiliary: bool) -> list[Tensor]:
        c2, c4, c8 = skips
        x = F.relu(self.reduction(x), inplace=True)
        d8 = self.blocks[0]([x, c8], spatial_size(c8))
        d4 = self.blocks[1]([d8, c4], spatial_size(c4))
        d2 = self.blocks[2]([d4, c2], spatial_size(c2))
        d1 = self.blocks[3]([d2], image_size)
        maps = [d1, d2, d4] if auxiliary else [d1]
        return [layer(x) for layer, x in zip(self.seg_layers, maps, strict=False)]


class TransUNet(ViTNetwork):
    """TransUNet with R50+ViT-B/16; auxiliary heads at 1/2 and 1/4 are not in the paper.

    Args:
        blocks: transformer blocks, 12 in the paper; 3 and 1 are the truncated forms.
        dropout: of embeddings and MLPs in training; 0.1 in the authors' code.
        unet_levels: nnU-Net's levels (32 to 512 channels at strides 1 to 16) in the place of ResNet and decoder; not in
            the paper.
        drop_path, layer_scale: of the transformer's blocks, see `ViTEncoder`; not in the paper.
        shared: see `SegmentationNetwork`.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)
    pretrained_parts: tuple[PretrainedPart, ...] = (
        PretrainedPart(TRANSUNET_TAG, ((r"cnn\.(.+)", r"patch_embed.backbone.\1"), VIT_NAMES)),
    )

    def __init__(
        self,
        *,
        blocks: int = BLOCKS,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        unet_levels: bool = False,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(**shared)
        check_blocks("TransUNet", blocks, BLOCKS)
        self.cnn: nn.Module
        decoder: type[UNetDecoder | TransUNetDecoder]
        if unet_levels:
            self.cnn, decoder, width = DownLevels([self.in_channels, *UNET_WIDTHS]), UNetDecoder, UNET_WIDTHS[-1]
            self.pretrained_parts = ()
        else:
            self.cnn, decoder, width = ResNetV2Encoder(self.in_channels), TransUNetDecoder, WIDTHS[-1]
        self.vit = ViTEncoder(
            in_channels=width,
            grid=token_grid(self.image_size, PATCH),
            width=VIT_WIDTH,
            heads=HEADS,
            blocks=blocks,
            patch=1,
            dropout=dropout,
            drop_path=drop_path,
            layer_scale=layer_scale,
        )
        self.decoder = decoder(width=VIT_WIDTH, num_classes=self.num_classes, auxiliary_heads=self.auxiliary_heads)
        self._complete()

    def _logits(self, images: Tensor, *, auxiliary: bool) -> list[Tensor]:
        *skips, c16 = self.cnn(images)
        return self.decoder(self.vit(c16)[-1], skips, spatial_size(images), auxiliary=auxiliary)
