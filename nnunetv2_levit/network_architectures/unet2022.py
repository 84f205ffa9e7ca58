"""UNet-2022 (Guo et al. 2022, arXiv 2210.15566): a U-Net of parallel non-isomorphic (PI) blocks.

A convolutional stem, four encoder stages (the fourth is the bottleneck) and three decoder stages of three blocks each.
Follows the authors' code; ``variant="paper"`` builds the blocks as Eq. 2 to 4 print them.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.attention_bias import BiasPolicy, resize_relative_position_table
from nnunetv2_levit.network_architectures.grids import Grid, check_blocks, check_channels
from nnunetv2_levit.network_architectures.pi_block import PIBlock, SwinBlock, WindowAttention, convnext_block
from nnunetv2_levit.network_architectures.pretrained import LoadReport, copy_weights, find_weights, read_state_dict
from nnunetv2_levit.network_architectures.unet2022_parts import Decoder, Encoder, choose_windows, stage_grids

BLOCKS_PER_STAGE = 3
DROP_PATH = 0.2


@dataclass(frozen=True)
class UNet2022Size:
    """Embedding width and heads of the first stage (both double from stage to stage), and timm's matching ConvNeXt."""

    width: int
    heads: int
    timm_tag: str


UNET2022_SIZES = {
    "tiny": UNet2022Size(96, 3, "convnext_tiny.fb_in1k"),
    "base": UNet2022Size(128, 4, "convnext_base.fb_in1k"),
    "large": UNet2022Size(192, 6, "convnext_large.fb_in1k"),
}


class UNet2022(nn.Module):
    """UNet-2022 of one of the paper's three widths.

    ``forward`` takes (B, in_channels, H, W) and returns logits (B, num_classes, H, W), or with ``deep_supervision`` a
    list of logits at 1, 1/2 and 1/4 of the resolution.

    Args:
        size: "tiny" (96), "base" (128) or "large" (192 channels in the first stage).
        image_size: height and width in pixels; sets the windows.
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
        auxiliary_heads: heads for deep supervision.
        pretrained: a timm tag of a ConvNeXt, a local file, or None; see ``load_pretrained``.
    """

    deep_supervision_scales = (1.0, 0.5, 0.25)

    def __init__(
        self,
        *,
        size: str,
        in_channels: int,
        num_classes: int,
        image_size: Grid,
        stem_stride: int = 4,
        windows: tuple[int | Grid, ...] | None = None,
        variant: Literal["code", "paper"] = "code",
        block: Literal["pi", "swin", "convnext"] = "pi",
        attention: bool = True,
        convolution: bool = True,
        layer_scale: float = 1e-6,
        blocks: int | None = None,
        drop_path: float = DROP_PATH,
        auxiliary_heads: bool = False,
        pretrained: str | Path | None = None,
    ) -> None:
        super().__init__()
        self._check(size, image_size, stem_stride, variant, block, attention, convolution)
        check_blocks("each stage of UNet-2022", blocks, BLOCKS_PER_STAGE)
        depth = blocks or BLOCKS_PER_STAGE
        self.size, self.image_size, self.stem_stride = size, image_size, stem_stride
        self.in_channels = in_channels
        self.explicit_windows = None if windows is None else self._explicit(windows)
        self.block = block
        self.auxiliary_heads = auxiliary_heads
        self.deep_supervision = auxiliary_heads
        width, heads = UNET2022_SIZES[size].width, UNET2022_SIZES[size].heads
        grids, chosen = stage_grids(image_size, stem_stride), self.windows(image_size)
        build = {
            "pi": partial(PIBlock, paper=variant == "paper", attention=attention, convolution=convolution),
            "swin": SwinBlock,
            "convnext": convnext_block,
        }[block]

        def stage(index: int, rates: list[float]) -> list[nn.Module]:
            return [
                build(
                    width=width << index,
                    heads=heads << index,
                    window=chosen[index],
                    grid=grids[index],
                    shifted=position % 2 == 1,
                    drop_path=rate,
                    layer_scale=layer_scale,
                )
                for position, rate in enumerate(rates)
            ]

        def rates(stages: int) -> list[list[float]]:
            values = torch.linspace(0, drop_path, stages * depth, device="cpu").tolist()
            return [values[i * depth : (i + 1) * depth] for i in range(stages)]

        self.encoder = Encoder(
            in_channels=in_channels,
            width=width,
            stem_stride=stem_stride,
            stages=[stage(index, r) for index, r in enumerate(rates(4))],
        )
        self.decoder = Decoder(
            width=width,
            num_classes=num_classes,
            stem_stride=stem_stride,
            stages=[stage(index, r) for index, r in enumerate(reversed(rates(3)))],
            auxiliary_heads=auxiliary_heads,
        )
        self.to(memory_format=torch.channels_last)
        self.pretrained_report: LoadReport | None = None
        if pretrained is not None:
            self.load_pretrained(pretrained)

    @staticmethod
    def _check(size, image_size, stem_stride, variant, block, attention, convolution) -> None:
        if size not in UNET2022_SIZES:
            raise UserError(f"UNet-2022 size {size!r} is unknown: choose one of {', '.join(UNET2022_SIZES)}")
        if stem_stride not in (4, 8):
            raise UserError(f"UNet-2022's stem stride is 4 or 8, not {stem_stride!r}")
        if min(image_size) < 8 * stem_stride:
            raise UserError(
                f"a patch of {image_size[0]}x{image_size[1]} is too small for a stem stride of {stem_stride}: "
                f"it needs {8 * stem_stride} pixels a side" + (", or stem stride 4" if stem_stride == 8 else "")
            )
        if variant not in ("code", "paper") or block not in ("pi", "swin", "convnext"):
            raise UserError(
                f"UNet-2022 has variants code and paper and blocks pi, swin and convnext, not {variant!r} and {block!r}"
            )
        if not attention and not convolution:
            raise UserError(
                "UNet-2022 without attention and convolution has no second part: leave one, or use block convnext"
            )

    @staticmethod
    def _explicit(windows: tuple[int | Grid, ...]) -> list[Grid]:
        if len(windows) != 4:
            raise UserError(f"UNet-2022 needs the windows of four stages, got {len(windows)}: {windows}")
        return [(w, w) if isinstance(w, int) else (int(w[0]), int(w[1])) for w in windows]

    def windows(self, image_size: Grid) -> list[Grid]:
        """Windows of the four encoder stages for an image size.

        Raises:
            UserError: explicit windows that are larger than their map, or smaller than 1.
        """
        if self.explicit_windows is None:
            return choose_windows(image_size, self.stem_stride)
        for index, (window, grid) in enumerate(
            zip(self.explicit_windows, stage_grids(image_size, self.stem_stride), strict=True)
        ):
            if not all(1 <= side <= extent for side, extent in zip(window, grid, strict=True)):
                raise UserError(
                    f"the window {window[0]}x{window[1]} of stage {index + 1} does not fit its map of "
                    f"{grid[0]}x{grid[1]} tokens: choose smaller windows or a larger patch"
                )
        return self.explicit_windows

    def load_pretrained(self, source: str | Path) -> LoadReport:
        """Load a ConvNeXt's blocks into the first part of every block, encoder and decoder.

        Takes the first three blocks of each stage of timm's ``convnext_{tiny,base,large}``; the decoder's stages get
        those of the encoder's stage of their width. Everything else stays random, as ``pretrained_report`` lists.

        Raises:
            UserError: the file can't be had or read, or does not fit; or the blocks have no ConvNeXt part.
        """
        if self.block == "swin":
            raise UserError("UNet-2022 with Swin blocks has no part that ConvNeXt's weights fit: train it from scratch")
        path = find_weights(source)
        first_part = r"local\." if self.block == "pi" else ""
        pattern = re.compile(rf"(?:en|de)coder\.stages\.(\d)\.(\d)\.{first_part}(.+)")
        names = {
            target: f"stages.{match[1]}.blocks.{match[2]}.{match[3]}"
            for target in self.state_dict()
            if (match := pattern.fullmatch(target))
        }
        self.pretrained_report = copy_weights(
            self, read_state_dict(path), names=names, path=path, needed=UNET2022_SIZES[self.size].timm_tag
        )
        return self.pretrained_report

    def adapt_state_dict(
        self, state: dict[str, Tensor], *, image_size: Grid, bias_policy: BiasPolicy = "extend"
    ) -> dict[str, Tensor]:
        """A state dict of this network built for another ``image_size``, with its bias tables resized to this one's."""
        old, new = self.windows(image_size), self.windows(self.image_size)
        adapted = dict(state)
        for part_name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            for index, stage in enumerate(part.stages):
                for name, module in stage.named_modules():
                    key = f"{part_name}.stages.{index}.{name}.relative_position_bias_table"
                    if isinstance(module, WindowAttention) and key in adapted:
                        adapted[key] = resize_relative_position_table(
                            adapted[key], old_window=old[index], new_window=new[index], policy=bias_policy
                        )
        return adapted

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_channels(x, self.in_channels)
        auxiliary = self.deep_supervision and self.auxiliary_heads
        size = (x.shape[2], x.shape[3])
        x = x.contiguous(memory_format=torch.channels_last)
        outputs = self.decoder(self.encoder(x), size, auxiliary=auxiliary)
        return outputs if auxiliary else outputs[0]
