"""UNet-2022 (Guo et al. 2022, arXiv 2210.15566): a U-Net of parallel non-isomorphic (PI) blocks.

A convolutional stem, four encoder stages (the fourth is the bottleneck) and three decoder stages of three blocks each.
Follows the authors' code; ``variant="paper"`` builds the blocks as Eq. 2 to 4 print them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.base import SegmentationNetwork, check_blocks, check_choice
from nnunetv2_levit.network_architectures.layers.attention_bias import (
    BiasPolicy,
    check_bias_policy,
    resize_relative_position_table,
)
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.pretrained import PretrainedPart
from nnunetv2_levit.network_architectures.unet2022.decoder import Decoder
from nnunetv2_levit.network_architectures.unet2022.encoder import Encoder
from nnunetv2_levit.network_architectures.unet2022.pi_block import BlockDesign
from nnunetv2_levit.network_architectures.unet2022.sizes import BLOCKS_PER_STAGE, UNET2022_SIZES
from nnunetv2_levit.network_architectures.unet2022.window_attention import WindowAttention
from nnunetv2_levit.network_architectures.unet2022.windows import STAGES, choose_windows, encoder_grids, given_windows

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.base import SharedArguments

DROP_PATH = 0.2


def drop_path_rates(stages: int, depth: int, highest: float) -> list[list[float]]:
    """Rates of the blocks of each stage in the order in which they run, rising linearly from 0."""
    return torch.linspace(0, highest, stages * depth, device="cpu").view(stages, depth).tolist()


class UNet2022(SegmentationNetwork):
    """UNet-2022 of one of the paper's three widths; the image size sets the windows.

    Args:
        size: "tiny" (96), "base" (128) or "large" (192 channels in the first stage).
        stem_stride: 4, or 8 for high resolution (the paper's P).
        windows: windows of the four encoder stages, a number or (height, width) each; None chooses by
            `choose_windows`. The decoder uses the first three.
        variant: "code" (default) or "paper"; see `PIBlock`.
        block: "pi", or "swin" or "convnext" for the comparison of Table 5.
        attention, convolution: False leaves out the self-attention or the depth-wise convolution of the second part of
            each PI block (Table 6).
        layer_scale: initial gamma of each block's first part; 1e-6 starts every first part at nearly nothing
            (docs/lab/unet2022_layer_scale.md compares).
        blocks: blocks of each stage; None takes the paper's three.
        drop_path: highest probability of dropping the last residual branch; it rises linearly from 0 over the encoder's
            blocks, and again over the decoder's in the order in which they run.
        unet_levels: the levels of nnU-Net's U-Net at strides 1, 2 and 4 (two convolutions each with instance norm, 32
            to 128 channels), in the place of the stem, the first stage of encoder and decoder, and the 4x4 heads; not
            in the paper.
        bias_policy: how the position biases of weights for another image size are resized, "extend" or "scale"; see
            `resize_relative_position_table`.
        shared: see `SegmentationNetwork`. ``pretrained`` is a ConvNeXt: the first three blocks of each stage go into
            the first part of every block, the decoder's stages get those of the encoder's stage of their width.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)
    encoder: Encoder
    decoder: Decoder

    def __init__(
        self,
        *,
        size: str,
        stem_stride: int = 4,
        windows: Sequence[int | Grid] | None = None,
        variant: Literal["code", "paper"] = "code",
        block: Literal["pi", "swin", "convnext"] = "pi",
        attention: bool = True,
        convolution: bool = True,
        layer_scale: float = 1e-6,
        blocks: int | None = None,
        drop_path: float = DROP_PATH,
        unet_levels: bool = False,
        bias_policy: BiasPolicy = "extend",
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(**shared)
        check_choice("UNet-2022 size", size, UNET2022_SIZES)
        if stem_stride not in (4, 8):
            raise UserError(f"UNet-2022's stem stride is 4 or 8, not {stem_stride!r}")
        if min(self.image_size) < 8 * stem_stride:
            raise UserError(
                f"a patch of {self.image_size[0]}x{self.image_size[1]} is too small for a stem stride of "
                f"{stem_stride}: it needs {8 * stem_stride} pixels a side"
                + (", or stem stride 4" if stem_stride == 8 else "")
            )
        if variant not in ("code", "paper") or block not in ("pi", "swin", "convnext"):
            raise UserError(
                f"UNet-2022 has variants code and paper and blocks pi, swin and convnext, not {variant!r} and {block!r}"
            )
        if not attention and not convolution:
            raise UserError(
                "UNet-2022 without attention and convolution has no second part: leave one, or use block convnext"
            )
        if unet_levels and stem_stride != 4:
            raise UserError("UNet-2022 with nnU-Net's levels has stride 4 before its stages: leave out stem_stride")
        check_blocks("each stage of UNet-2022", blocks, BLOCKS_PER_STAGE)
        check_bias_policy(bias_policy)
        self.size, self.stem_stride, self.given_windows = UNET2022_SIZES[size], stem_stride, windows
        self.bias_policy, self.first_stage = bias_policy, int(unet_levels)
        if block != "swin" and not unet_levels:
            first_part = r"local\." if block == "pi" else ""
            name = rf"(?:en|de)coder\.stages\.(\d)\.(\d)\.{first_part}(.+)"
            self.pretrained_parts = (PretrainedPart(self.size.timm_tag, ((name, r"stages.\1.blocks.\2.\3"),)),)
        design = BlockDesign(
            kind=block,
            paper=variant == "paper",
            attention=attention,
            convolution=convolution,
            layer_scale=layer_scale,
        )
        depth = BLOCKS_PER_STAGE if blocks is None else blocks
        self.encoder = Encoder(
            in_channels=self.in_channels,
            width=self.size.width * 2**self.first_stage,
            stem_stride=stem_stride,
            stages=self._stages(design, drop_path_rates(STAGES, depth, drop_path))[self.first_stage :],
            unet_levels=unet_levels,
        )
        coarsest_first = drop_path_rates(STAGES - 1, depth, drop_path)
        self.decoder = Decoder(
            width=self.size.width * 2**self.first_stage,
            num_classes=self.num_classes,
            stem_stride=stem_stride,
            stages=self._stages(design, coarsest_first[::-1])[self.first_stage :],
            auxiliary_heads=self.auxiliary_heads,
            unet_levels=unet_levels,
        )
        self._complete()

    def _stages(self, design: BlockDesign, drop_rates: list[list[float]]) -> list[list[nn.Module]]:
        """Blocks of as many stages as there are lists of rates, the finest first; every second block is shifted."""
        grids, windows = encoder_grids(self.image_size, self.stem_stride), self.windows(self.image_size)
        return [
            [
                design.build(
                    width=self.size.width * 2**index,
                    heads=self.size.heads * 2**index,
                    window=windows[index],
                    grid=grids[index],
                    shifted=position % 2 == 1,
                    drop_path=rate,
                )
                for position, rate in enumerate(rates)
            ]
            for index, rates in enumerate(drop_rates)
        ]

    def windows(self, image_size: Grid) -> list[Grid]:
        """Windows of the four encoder stages for an image size.

        Raises:
            UserError: given windows that are larger than their map, or smaller than 1.
        """
        if self.given_windows is None:
            return choose_windows(image_size, self.stem_stride)
        return given_windows(self.given_windows, image_size=image_size, stem_stride=self.stem_stride)

    def table_grids(self, image_size: Grid) -> dict[str, Grid]:
        windows = self.windows(image_size)[self.first_stage :]
        grids = {}
        for part, stages in (("encoder", self.encoder.stages), ("decoder", self.decoder.stages)):
            for index, stage in enumerate(stages):
                for name, module in stage.named_modules():
                    if isinstance(module, WindowAttention):
                        grids[f"{part}.stages.{index}.{name}.relative_position_bias_table"] = windows[index]
        return grids

    def resize_table(self, table: Tensor, *, old_grid: Grid, new_grid: Grid) -> Tensor:
        return resize_relative_position_table(table, old_window=old_grid, new_window=new_grid, policy=self.bias_policy)
