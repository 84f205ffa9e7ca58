"""LeViT-UNet (Xu et al. 2021, arXiv 2107.08623): a LeViT encoder with a convolutional U-Net decoder.

Follows the authors' code where it and the paper differ: attention before MLP, batch norm after each linear layer, the
logits predicted at half resolution and upsampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.base import SegmentationNetwork, check_blocks, check_choice
from nnunetv2_levit.network_architectures.layers.attention_bias import (
    BiasPolicy,
    check_bias_policy,
    resize_attention_bias_table,
)
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.layers.other_norms import (
    MAP_NORMS,
    TOKEN_NORMS,
    MapNorm,
    TokenNorm,
    set_norms,
)
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_SCALES
from nnunetv2_levit.network_architectures.levit_unet.decoder import SCALES, JoinedUNetDecoder, LeViTUNetDecoder
from nnunetv2_levit.network_architectures.levit_unet.encoder import LeViTEncoder
from nnunetv2_levit.network_architectures.levit_unet.sizes import LEVIT_VARIANTS, SKIPS
from nnunetv2_levit.network_architectures.pretrained import PretrainedPart

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.base import SharedArguments


class LeViTUNet(SegmentationNetwork):
    """LeViT-UNet of one of the paper's three sizes; auxiliary heads at 1/4 and 1/8 are not in the paper.

    ``forward`` takes H and W of at most those of ``image_size``, which sets the extent of the attention biases.

    Args:
        variant: "128s", "192" or "384".
        transformer: False gives the paper's "-Conv" networks (Table 3), which decode c4 alone.
        skips: how many skip connections, from c1 inwards (Table 4): 0 to 4. Without a transformer c4 is the decoder's
            only input and stays.
        identity_attention: every token attends to itself alone (an ablation; queries, keys and biases are left out).
        blocks: at most that many blocks in each transformer stage (the first ones); None keeps all.
        drop_path: probability of dropping a residual branch; None takes LeViT's own (0, 0, 0.1).
        bias_policy: how the attention biases of weights for another image size are resized, "extend" or "scale"; see
            `resize_attention_bias_table`.
        norm, token_norm: of maps ("batch", "instance" or "group") and after the linear layers of tokens ("batch" or
            "layer"); the paper has batch norm everywhere.
        unet_levels: the levels of nnU-Net's U-Net at strides 1 to 8 (two convolutions each with instance norm, 32 to
            256 channels), in the place of the stem and the decoder, and deep supervision at 1/2 and 1/4 in the place of
            1/4 and 1/8; not in the paper.
        shared: see `SegmentationNetwork`; ``pretrained`` is a LeViT classifier.
    """

    deep_supervision_scales = SCALES
    encoder: LeViTEncoder

    def __init__(
        self,
        *,
        variant: str,
        transformer: bool = True,
        skips: int = SKIPS,
        identity_attention: bool = False,
        blocks: int | None = None,
        drop_path: float | None = None,
        bias_policy: BiasPolicy = "extend",
        norm: MapNorm = "batch",
        token_norm: TokenNorm = "batch",
        unet_levels: bool = False,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(**shared)
        check_choice("LeViT-UNet variant", variant, LEVIT_VARIANTS)
        if skips not in range(5):
            raise UserError(f"LeViT-UNet has 0 to 4 skip connections, not {skips!r}")
        if unet_levels and (skips != SKIPS or norm != "batch"):
            raise UserError("LeViT-UNet with nnU-Net's levels has their skips and norms: leave out skips and norm")
        size = LEVIT_VARIANTS[variant]
        check_blocks(f"each stage of LeViT-UNet {variant}", blocks, max(size.depths))
        check_bias_policy(bias_policy)
        check_choice("norm of maps", norm, MAP_NORMS)
        check_choice("norm of tokens", token_norm, TOKEN_NORMS)
        self.bias_policy = bias_policy
        self.table_kind = f"attention biases (policy {bias_policy})"
        if not identity_attention and not unet_levels:
            self.pretrained_parts = (PretrainedPart(size.timm_tag, ((r"encoder\.(.+)", r"\1"),)),)
        self.encoder = LeViTEncoder(
            variant=size,
            in_channels=self.in_channels,
            image_size=self.image_size,
            transformer=transformer,
            identity_attention=identity_attention,
            blocks=blocks,
            drop_path=drop_path,
            unet_levels=unet_levels,
        )
        width, transformer_widths = size.widths[0], size.widths if transformer else ()
        self.decoder: nn.Module
        if unet_levels:
            self.deep_supervision_scales = UNET_SCALES
            self.decoder = JoinedUNetDecoder(
                bottleneck_widths=(width, *transformer_widths),
                num_classes=self.num_classes,
                auxiliary_heads=self.auxiliary_heads,
            )
        else:
            self.decoder = LeViTUNetDecoder(
                stem_widths=(width // 8, width // 4, width // 2, width),
                transformer_widths=transformer_widths,
                num_classes=self.num_classes,
                skips=skips,
                auxiliary_heads=self.auxiliary_heads,
            )
        set_norms(self, maps=norm, tokens=token_norm)
        self._complete()

    def table_grids(self, image_size: Grid) -> dict[str, Grid]:
        return {f"encoder.{name}": grid for name, grid in self.encoder.bias_grids(image_size).items()}

    def resize_table(self, table: Tensor, *, old_grid: Grid, new_grid: Grid) -> Tensor:
        return resize_attention_bias_table(table, old_grid=old_grid, new_grid=new_grid, policy=self.bias_policy)
