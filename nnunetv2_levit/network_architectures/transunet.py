"""TransUNet (Chen et al. 2021, arXiv 2102.04306), whole and truncated to fewer transformer blocks.

The truncated forms keep the first blocks and are otherwise the same network (Petitjean, Hasany and Meriaudeau 2023).
"""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.convolution_blocks import ConvNorm
from nnunetv2_levit.network_architectures.decoder_blocks import UpsampleConvBlock
from nnunetv2_levit.network_architectures.grids import Grid, check_blocks, token_grid
from nnunetv2_levit.network_architectures.resnetv2_encoder import STEM_WIDTH, WIDTHS, ResNetV2Encoder
from nnunetv2_levit.network_architectures.upsampled_convolution import Source
from nnunetv2_levit.network_architectures.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_network import PretrainedPart, ViTNetwork

BLOCKS = 12
DECODER_WIDTHS = (256, 128, 64, 16)
TIMM_TAG = "vit_base_r50_s16_224.orig_in21k"


class TransUNetDecoder(nn.Module):
    """3x3 to 512, three blocks that upsample, concatenate and convolve, one that upsamples and convolves; 3x3 head.

    ``forward`` takes the transformer's map (stride 16), the skips at 1/8, 1/4 and 1/2 and returns logits at full
    resolution, and at 1/2 and 1/4 where auxiliary heads exist and are asked for.
    """

    def __init__(self, *, width: int, num_classes: int, auxiliary_heads: bool) -> None:
        super().__init__()
        self.reduction = ConvNorm(width, 512, 3, bias=False)
        d8, d4, d2, d1 = DECODER_WIDTHS
        self.blocks = nn.ModuleList(
            [
                UpsampleConvBlock([512, WIDTHS[1]], d8),
                UpsampleConvBlock([d8, WIDTHS[0]], d4),
                UpsampleConvBlock([d4, STEM_WIDTH], d2),
                UpsampleConvBlock(d2, d1),
            ]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(d1, num_classes, 3, padding=1)])
        if auxiliary_heads:
            self.seg_layers.extend([nn.Conv2d(d2, num_classes, 1), nn.Conv2d(d4, num_classes, 1)])

    def forward(self, x: Tensor, skips: list[Tensor], image_size: Grid, *, auxiliary: bool) -> list[Tensor]:
        x = F.relu(self.reduction(x), inplace=True)
        outputs = []
        for index, (block, skip) in enumerate(zip(self.blocks, skips, strict=False)):
            x = block([Source(x), Source(skip)], (skip.shape[2], skip.shape[3]))
            if auxiliary and index > 0:
                outputs.insert(0, self.seg_layers[3 - index](x))
        return [self.seg_layers[0](self.blocks[3](x, image_size)), *outputs]


class TransUNet(ViTNetwork):
    """TransUNet with R50+ViT-B/16.

    ``forward`` takes (B, in_channels, H, W) and returns logits (B, num_classes, H, W); with ``deep_supervision`` set, a
    list of logits at 1, 1/2 and 1/4 of the resolution.

    Args:
        image_size: height and width in pixels; sets the extent of the position embedding.
        blocks: transformer blocks, 12 in the paper; 3 and 1 are the truncated forms.
        dropout: of embeddings and MLPs in training; 0.1 in the authors' code.
        auxiliary_heads: adds 1x1 heads for deep supervision (not in the paper).
        pretrained: the timm tag vit_base_r50_s16_224.orig_in21k, a local file, or None.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)

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
        check_blocks("TransUNet", blocks, BLOCKS)
        self.cnn = ResNetV2Encoder(in_channels)
        self.vit = ViTEncoder(
            in_channels=WIDTHS[-1],
            grid=token_grid(image_size, PATCH),
            width=768,
            heads=12,
            blocks=blocks,
            patch=1,
            dropout=dropout,
        )
        self.decoder = TransUNetDecoder(width=768, num_classes=num_classes, auxiliary_heads=auxiliary_heads)
        self.pretrained_parts = (PretrainedPart(TIMM_TAG, {"cnn.": "patch_embed.backbone.", "vit.": ""}),)
        self._complete(pretrained)

    def _decode(self, x: Tensor, *, auxiliary: bool) -> list[Tensor]:
        c2, c4, c8, c16 = self.cnn(x)
        (tokens,) = self.vit(c16)
        return self.decoder(tokens, [c8, c4, c2], (x.shape[2], x.shape[3]), auxiliary=auxiliary)
