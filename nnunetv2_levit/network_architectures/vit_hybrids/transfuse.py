"""TransFuse (Zhang et al. 2021, arXiv 2102.08005): a CNN and a transformer side by side, fused at three scales.

Follows the authors' code. Their network carries the transformer's class token, which nothing reads and which never gets
a gradient; it is left out here: 26,248,341 parameters instead of 26,248,725 for TransFuse-S at 192 x 256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.base import check_blocks, check_choice
from nnunetv2_levit.network_architectures.layers.convolution_blocks import ConvNorm, ResidualDoubleConv
from nnunetv2_levit.network_architectures.layers.grids import Grid, spatial_size, token_grid
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_WIDTHS, DownLevels, UpLevels
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import upsample
from nnunetv2_levit.network_architectures.pretrained import PretrainedPart
from nnunetv2_levit.network_architectures.vit_hybrids.cnn_encoder import CNN_NAMES, build_cnn
from nnunetv2_levit.network_architectures.vit_hybrids.fusion import AttentionGate, BiFusion
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CNNS, TRANSFUSE_SIZES
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH, ViTEncoder
from nnunetv2_levit.network_architectures.vit_hybrids.vit_network import VIT_NAMES, ViTNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.base import SharedArguments


class GatedUp(nn.Module):
    """Upsampling to the skip's size, the skip through an attention gate, concatenation, residual convolutions."""

    def __init__(self, *, width: int, skip_width: int) -> None:
        super().__init__()
        self.gate = AttentionGate(width=width, skip_width=skip_width, hidden=skip_width)
        self.conv = ResidualDoubleConv([skip_width, width], skip_width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv([self.gate(x, skip), x], spatial_size(skip))


class TransFuseHeads(nn.Module):
    """Heads on the final map, on the transformer's finest map and on the first fusion; one without auxiliary heads.

    Each is a chain of convolutions with BN and ReLU and a 3x3 to the classes; the logits are upsampled to the image.
    """

    def __init__(self, *, widths: tuple[int, int, int], num_classes: int, auxiliary_heads: bool) -> None:
        super().__init__()
        final, width, coarse = widths
        chains, heads = [[ConvNorm(final, final, 3)]], [final]
        if auxiliary_heads:
            chains.append([ConvNorm(width, width, 3)])
            chains.append([ConvNorm(coarse, width, 1), ConvNorm(width, width, 3)])
            heads += [width, width]
        self.chains = nn.ModuleList([nn.ModuleList(chain) for chain in chains])
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(channels, num_classes, 3, padding=1) for channels in heads])

    def forward(self, maps: list[Tensor], image_size: Grid) -> list[Tensor]:
        outputs = []
        for x, chain, layer in zip(maps, self.chains, self.seg_layers, strict=False):
            for convolution in chain.children():
                x = F.relu(convolution(x), inplace=True)
            outputs.append(upsample(layer(x), image_size))
        return outputs


class TransFuse(ViTNetwork):
    """TransFuse-S, -L or -L*. Its outputs are all at full resolution: final map, transformer branch, first fusion.

    Args:
        size: "s" (ResNet-34, DeiT-S), "l" (Res2Net-50, DeiT-B) or "lstar" (ResNetV2-50, ViT-B/16).
        blocks: transformer blocks; None takes the size's own (8, 10, 12).
        dropout: of whole channels of the branches' maps in training; half of it after each fusion.
        drop_path, layer_scale: of the transformer's blocks, see `ViTEncoder`; not in the paper.
        unet_levels: nnU-Net's levels (32 to 512 channels at strides 1 to 16) in the place of the CNN, and two of its
            decoder's above the final map, which the paper has at stride 4; not in the paper.
        shared: see `SegmentationNetwork`; ``pretrained`` takes the CNN's weights and the transformer's.
    """

    deep_supervision_scales = (1.0, 1.0, 1.0)

    def __init__(
        self,
        *,
        size: str,
        blocks: int | None = None,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        unet_levels: bool = False,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(**shared)
        check_choice("TransFuse size", size, TRANSFUSE_SIZES)
        shape = TRANSFUSE_SIZES[size]
        check_blocks(f"TransFuse size {size}", blocks, shape.blocks)
        backbone = CNNS[shape.cnn]
        self.fine_levels: UpLevels | None = None
        if unet_levels:
            w1, w2, w4, w8, w16 = UNET_WIDTHS
            self.cnn: nn.Module = DownLevels([self.in_channels, *UNET_WIDTHS])
            self.fine_levels = UpLevels([w1, w2, w4])
        else:
            self.pretrained_parts = (
                PretrainedPart(backbone.timm_tag, CNN_NAMES),
                PretrainedPart(shape.timm_tag, (VIT_NAMES,)),
            )
            _, w4, w8, w16 = backbone.widths
            self.cnn = build_cnn(backbone, in_channels=self.in_channels, strides=(4, 8, 16))
        self.vit = ViTEncoder(
            in_channels=self.in_channels,
            grid=token_grid(self.image_size, PATCH),
            width=shape.width,
            heads=shape.heads,
            blocks=shape.blocks if blocks is None else blocks,
            drop_path=drop_path,
            layer_scale=layer_scale,
        )
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
            widths=(w1 if unet_levels else w4, w4, w16),
            num_classes=self.num_classes,
            auxiliary_heads=self.auxiliary_heads,
        )
        self._complete()

    def _logits(self, images: Tensor, *, auxiliary: bool) -> list[Tensor]:
        *finer, c4, c8, c16 = self.cnn(images)
        g2, g1, g0 = (self.dropout(g) for g in (c4, c8, c16))  # as the paper numbers them: 0 is the coarsest
        t0 = self.dropout(self.vit(images)[-1])
        t1 = self.dropout(self.transformer_ups[0]([t0], spatial_size(g1)))
        t2 = self.dropout(self.transformer_ups[1]([t1], spatial_size(g2)))
        f0 = self.fusions[0](g0, t0)
        f1 = self.ups[0](f0, self.fusions[1](g1, t1))
        f2 = self.ups[1](f1, self.fusions[2](g2, t2))
        final = f2 if self.fine_levels is None else self.fine_levels(f2, finer)[0]
        maps = [final, t2, f0] if auxiliary else [final]
        return self.decoder(maps, spatial_size(images))
