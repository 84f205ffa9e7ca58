"""TransFuse (Zhang et al. 2021, arXiv 2102.08005): a CNN and a transformer side by side, fused at three scales.

Follows the authors' code. Their network carries the transformer's class token, which nothing reads and which never gets
a gradient; it is left out here: 26,248,341 parameters instead of 26,248,725 for TransFuse-S at 192 x 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.cnn_encoder import CNNS, build_cnn
from nnunetv2_levit.network_architectures.convolution_blocks import ConvNorm, ResidualDoubleConv
from nnunetv2_levit.network_architectures.decoder_blocks import upsample
from nnunetv2_levit.network_architectures.fusion import AttentionGate, BiFusion
from nnunetv2_levit.network_architectures.grids import Grid, check_blocks, token_grid
from nnunetv2_levit.network_architectures.upsampled_convolution import Source
from nnunetv2_levit.network_architectures.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_network import PretrainedPart, ViTNetwork


@dataclass(frozen=True)
class TransFuseSize:
    """Backbones of one variant: the CNN, and the transformer's width, heads, blocks and timm's weights."""

    cnn: str
    width: int
    heads: int
    blocks: int
    timm_tag: str


TRANSFUSE_SIZES = {
    "s": TransFuseSize("resnet34", 384, 6, 8, "deit_small_patch16_224.fb_in1k"),
    "l": TransFuseSize("res2net50", 768, 12, 10, "deit_base_patch16_224.fb_in1k"),
    "lstar": TransFuseSize("resnetv2_50", 768, 12, 12, "vit_base_patch16_224.orig_in21k"),
}


class GatedUp(nn.Module):
    """Upsampling to the skip's size, the skip through an attention gate, concatenation, residual convolutions."""

    def __init__(self, *, width: int, skip_width: int) -> None:
        super().__init__()
        self.gate = AttentionGate(width=width, skip_width=skip_width, hidden=skip_width)
        self.conv = ResidualDoubleConv([skip_width, width], skip_width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        upsampled = Source(x, ((skip.shape[2], skip.shape[3]),))
        return self.conv([Source(self.gate(upsampled, skip)), upsampled])


class TransFuseHeads(nn.Module):
    """Heads on the final map, on the transformer's finest map and on the first fusion; one without auxiliary heads.

    Each is a chain of convolutions with BN and ReLU and a 3x3 to the classes; the logits are upsampled to the image.
    """

    def __init__(self, *, width: int, coarse_width: int, num_classes: int, auxiliary_heads: bool) -> None:
        super().__init__()
        chains = [[ConvNorm(width, width, 3)]]
        if auxiliary_heads:
            chains += [[ConvNorm(width, width, 3)], [ConvNorm(coarse_width, width, 1), ConvNorm(width, width, 3)]]
        self.chains = nn.ModuleList([nn.ModuleList(chain) for chain in chains])
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(width, num_classes, 3, padding=1) for _ in chains])

    def forward(self, maps: list[Tensor], image_size: Grid) -> list[Tensor]:
        outputs = []
        for x, chain, layer in zip(maps, self.chains, self.seg_layers, strict=False):
            for convolution in chain:
                x = F.relu(convolution(x), inplace=True)
            outputs.append(upsample(layer(x), image_size))
        return outputs


class TransFuse(ViTNetwork):
    """TransFuse-S, -L or -L*.

    ``forward`` takes (B, in_channels, H, W) and returns logits (B, num_classes, H, W); with ``deep_supervision`` set, a
    list of three, all at full resolution: final map, transformer branch, first fusion.

    Args:
        size: "s" (ResNet-34, DeiT-S), "l" (Res2Net-50, DeiT-B) or "lstar" (ResNetV2-50, ViT-B/16).
        image_size: height and width in pixels; sets the extent of the position embedding.
        blocks: transformer blocks; None takes the size's own (8, 10, 12).
        dropout: of whole channels of the branches' maps in training; half of it after each fusion.
        auxiliary_heads: heads on the transformer branch and on the first fusion.
        pretrained: timm tags or files of the CNN and the transformer as in ``pretrained_parts``, or None.
    """

    deep_supervision_scales = (1.0, 1.0, 1.0)

    def __init__(
        self,
        *,
        size: str,
        in_channels: int,
        num_classes: int,
        image_size: Grid,
        blocks: int | None = None,
        dropout: float = 0.2,
        auxiliary_heads: bool = False,
        pretrained: Sequence[str | Path] | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, image_size=image_size, auxiliary_heads=auxiliary_heads)
        if size not in TRANSFUSE_SIZES:
            raise UserError(f"TransFuse size {size!r} is unknown: choose one of {', '.join(TRANSFUSE_SIZES)}")
        shape = TRANSFUSE_SIZES[size]
        blocks = shape.blocks if blocks is None else blocks
        check_blocks(f"TransFuse size {size}", blocks, shape.blocks)
        backbone = CNNS[shape.cnn]
        self.pretrained_parts = (
            PretrainedPart(backbone.timm_tag, {"cnn.": ""}),
            PretrainedPart(shape.timm_tag, {"vit.": ""}),
        )
        self.cnn = build_cnn(backbone, in_channels=in_channels, strides=(4, 8, 16))
        self.vit = ViTEncoder(
            in_channels=in_channels,
            grid=token_grid(image_size, PATCH),
            width=shape.width,
            heads=shape.heads,
            blocks=blocks,
        )
        _, w4, w8, w16 = backbone.widths
        self.dropout = nn.Dropout2d(dropout)
        self.transformer_ups = nn.ModuleList([ResidualDoubleConv([shape.width], w8), ResidualDoubleConv([w8], w4)])
        self.fusions = nn.ModuleList(
            [
                BiFusion(cnn_width=c, transformer_width=t, reduction=r, dropout=dropout / 2)
                for c, t, r in ((w16, shape.width, 4), (w8, w8, 2), (w4, w4, 1))
            ]
        )
        self.ups = nn.ModuleList([GatedUp(width=w16, skip_width=w8), GatedUp(width=w8, skip_width=w4)])
        self.decoder = TransFuseHeads(
            width=w4, coarse_width=w16, num_classes=num_classes, auxiliary_heads=auxiliary_heads
        )
        self._complete(pretrained)

    def _decode(self, x: Tensor, *, auxiliary: bool) -> list[Tensor]:
        cnn = [self.dropout(c) for c in self.cnn(x)]
        transformer = [self.dropout(t) for t in self.vit(x)]
        for up, finer in zip(self.transformer_ups, (cnn[1], cnn[0]), strict=True):
            size = (finer.shape[2], finer.shape[3])
            transformer.append(self.dropout(up([Source(transformer[-1], (size,))])))
        fused = [fusion(c, t) for fusion, c, t in zip(self.fusions, reversed(cnn), transformer, strict=True)]
        first, final = fused[0], fused[0]
        for up, skip in zip(self.ups, fused[1:], strict=True):
            final = up(final, skip)
        maps = [final, transformer[-1], first] if auxiliary else [final]
        return self.decoder(maps, (x.shape[2], x.shape[3]))
