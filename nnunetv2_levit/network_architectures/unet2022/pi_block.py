"""The parallel non-isomorphic (PI) block of UNet-2022 (Guo et al. 2022, section 3.2) and those it is compared with."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from timm.layers import DropPath, Mlp
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.depthwise_convolution import DepthwiseConv2d
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm, norm_channels
from nnunetv2_levit.network_architectures.unet2022.window_attention import WindowedMixing

CONVNEXT_NORM = partial(LayerNorm, eps=1e-6)  # timm's eps


class PIBlock(nn.Module):
    """A parallel non-isomorphic block, as coded or as printed: (B, C, H, W) -> (B, C, H, W).

    ``paper=False`` (the authors' code; * is layer scale, drop path is left out):

        F' = F + gamma * FC(GELU(FC(LN(DW(F)))))       (a ConvNeXt block)
        n  = LN(F')
        F" = F' + Proj(WindowAttention(n) + DW(n))

    ``paper=True`` (Eq. 2 to 4): no layer scale, no drop path, no norm before the attention, and the last residual is
    the mixed map itself:

        F' = MLP(DW(F)) + F                            (2), MLP being LN, FC, GELU, FC
        M  = SA(F') + DW(F')                           (3)
        F" = FC(M) + M                                 (4)
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        window: Grid,
        grid: Grid,
        shifted: bool,
        drop_path: float,
        layer_scale: float,
        paper: bool = False,
        attention: bool = True,
        convolution: bool = True,
    ) -> None:
        super().__init__()
        self.paper = paper
        self.local = convnext_block(
            width=width, drop_path=0.0 if paper else drop_path, layer_scale=None if paper else layer_scale
        )
        self.norm = nn.Identity() if paper else LayerNorm(width)
        self.mixing = WindowedMixing(
            width=width,
            heads=heads,
            window=window,
            grid=grid,
            shifted=shifted,
            attention=attention,
            convolution=convolution,
            project_with_residual=paper,
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(x)
        if self.paper:
            return self.mixing(x)
        return x + self.drop_path(self.mixing(norm_channels(self.norm, x)))


class SwinBlock(nn.Module):
    """Swin's block (Table 5, "ST"): window attention, then MLP, each after a layer norm and with a residual."""

    def __init__(self, *, width: int, heads: int, window: Grid, grid: Grid, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.mixing = WindowedMixing(
            width=width, heads=heads, window=window, grid=grid, shifted=shifted, convolution=False
        )
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixing(norm_channels(self.norm1, x)))
        return x + self.drop_path(self.mlp(self.norm2(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))


def convnext_block(*, width: int, drop_path: float, layer_scale: float | None) -> ConvNeXtBlock:
    """ConvNeXt's block (Table 5, "CNX"), which is the first part of a PI block."""
    block = ConvNeXtBlock(width, ls_init_value=layer_scale, drop_path=drop_path, norm_layer=CONVNEXT_NORM)
    block.conv_dw = DepthwiseConv2d.of(block.conv_dw)
    return block


@dataclass(frozen=True)
class BlockDesign:
    """What all blocks of a network have in common; see `UNet2022` for the words.

    Attributes:
        kind: "pi", "swin" or "convnext".
        paper, attention, convolution, layer_scale: see `PIBlock`.
    """

    kind: Literal["pi", "swin", "convnext"] = "pi"
    paper: bool = False
    attention: bool = True
    convolution: bool = True
    layer_scale: float = 1e-6

    def build(self, *, width: int, heads: int, window: Grid, grid: Grid, shifted: bool, drop_path: float) -> nn.Module:
        """One block for maps (B, width, *grid)."""
        if self.kind == "convnext":
            return convnext_block(width=width, drop_path=drop_path, layer_scale=self.layer_scale)
        if self.kind == "swin":
            return SwinBlock(width=width, heads=heads, window=window, grid=grid, shifted=shifted, drop_path=drop_path)
        return PIBlock(
            width=width,
            heads=heads,
            window=window,
            grid=grid,
            shifted=shifted,
            drop_path=drop_path,
            layer_scale=self.layer_scale,
            paper=self.paper,
            attention=self.attention,
            convolution=self.convolution,
        )
