"""The parallel non-isomorphic (PI) block of UNet-2022 (Guo et al. 2022, section 3.2) and those it is compared with.

Feature maps are (B, C, H, W) in channels-last memory throughout: layer norms and linear layers then see (B, H, W, C)
without a copy, and so do the depth-wise convolutions.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.attention_bias import (
    PRECOMPUTED_BIAS_LIMIT,
    biased_attention,
    expand_relative_position_bias,
)
from nnunetv2_levit.network_architectures.grids import Grid
from nnunetv2_levit.network_architectures.layer_norm import LayerNorm, norm_channels

MASKED = -100.0  # Swin's
CONVNEXT_NORM = partial(LayerNorm, eps=1e-6)  # timm's eps


def shift_mask(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """What separates tokens that a cyclic shift brought into one window: (windows, tokens, tokens), 0 or -100.

    ``grid`` is the padded map, a multiple of ``window``.
    """
    regions = torch.zeros(grid, dtype=torch.long)
    for axis in (0, 1):
        region = torch.zeros(grid[axis], dtype=torch.long)
        if shift[axis]:
            region[-window[axis] :] = 1
            region[-shift[axis] :] = 2
        regions = 3 * regions + (region[:, None] if axis == 0 else region[None, :])
    rows, columns = grid[0] // window[0], grid[1] // window[1]
    tokens = regions.view(rows, window[0], columns, window[1]).transpose(1, 2).reshape(rows * columns, -1)
    return MASKED * (tokens[:, :, None] != tokens[:, None, :]).float()


class WindowAttention(nn.Module):
    """Swin's window attention without its output projection. QKV has a bias; so has each pair of positions in a window
    (one table for all windows).

    ``forward`` takes (B, H, W, C), H and W multiples of the window h x w, and the `bias`; it returns a view
    (B, H / h, h, W / w, w, heads, C / heads), which lies in memory window by window.
    """

    def __init__(self, *, width: int, heads: int, window: Grid) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        table = torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def bias(self, mask: Tensor | None) -> Tensor:
        """What is added to the products: (heads, tokens, tokens), or with a mask (windows * heads, tokens, tokens)."""
        bias = expand_relative_position_bias(self.relative_position_bias_table, window=self.window)
        return bias if mask is None else (bias + mask[:, None].to(bias.dtype)).flatten(0, 1)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        wh, ww = self.window
        rows, columns, tokens, depth = height // wh, width // ww, wh * ww, channels // self.heads
        # windows are taken apart before QKV, which is three times as wide
        x = x.view(batch, rows, wh, columns, ww, channels).transpose(2, 3).reshape(-1, tokens, channels)
        qkv = self.qkv(x)
        if bias.shape[0] == self.heads:
            qkv = qkv.view(-1, tokens, 3, self.heads, depth).permute(2, 0, 3, 1, 4)
        else:  # windows beside heads, so that each has its own mask
            qkv = qkv.view(batch, rows * columns, tokens, 3, self.heads, depth).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        out = biased_attention(*qkv.unbind(0), bias, in_float32=False)
        return out.reshape(batch, rows, columns, self.heads, wh, ww, depth).permute(0, 1, 4, 2, 5, 3, 6)


class WindowedMixing(nn.Module):
    """Pads a map to whole windows, rolls it, mixes it by window attention and/or a 7x7 depth-wise convolution, projects
    it and rolls it back: (B, C, H, W) -> (B, C, H, W).

    The convolution sees the padded and rolled map as a whole, without mask, as the authors' code does. Where a window
    covers an axis of the map, that axis is not shifted. ``project_with_residual`` adds what is projected to its
    projection (Eq. 4).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        window: Grid,
        grid: Grid,
        shifted: bool,
        attention: bool = True,
        convolution: bool = True,
        project_with_residual: bool = False,
    ) -> None:
        super().__init__()
        if not attention and not convolution:
            raise ValueError("the second part of a PI block needs its attention or its convolution")
        self.window, self.shifted, self.project_with_residual = window, shifted, project_with_residual
        self.attention = WindowAttention(width=width, heads=heads, window=window) if attention else None
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width) if convolution else None
        self.proj = nn.Linear(width, width)
        self.grid = self._padded(grid)
        mask = shift_mask(self.grid, window, self._shift(grid)) if attention and any(self._shift(grid)) else None
        self.register_buffer("mask", mask, persistent=False)  # depends on sizes alone, never on weights
        self.register_buffer("precomputed_bias", None, persistent=False)

    def _padded(self, grid: Grid) -> Grid:
        (height, width), (wh, ww) = grid, self.window
        return -(-height // wh) * wh, -(-width // ww) * ww

    def _shift(self, grid: Grid) -> Grid:
        if not self.shifted:
            return 0, 0
        rows, columns = (side // 2 if side < extent else 0 for side, extent in zip(self.window, grid, strict=True))
        return rows, columns

    def _bias(self, padded: Grid, shift: Grid, device: torch.device) -> Tensor:
        if padded == self.grid:
            return self.attention.bias(self.mask) if self.precomputed_bias is None else self.precomputed_bias
        mask = None
        if any(shift):  # another size than the network was built for
            mask = shift_mask(padded, self.window, shift).to(device)
        return self.attention.bias(mask)

    def precompute(self) -> None:
        """Keep bias and mask added up, where they are small (see `fold_batch_norm`)."""
        if self.attention is not None:
            bias = self.attention.bias(self.mask).detach()
            self.precomputed_bias = bias if bias.numel() <= PRECOMPUTED_BIAS_LIMIT else None

    def forward(self, x: Tensor) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        padded, shift = self._padded(grid), self._shift(grid)
        if padded != grid:
            x = F.pad(x, (0, padded[1] - grid[1], 0, padded[0] - grid[0]))
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(2, 3))
        mixed = self._mix(x, padded, shift)
        x = self.proj(mixed)
        if self.project_with_residual:
            x = x + mixed
        x = x.permute(0, 3, 1, 2)
        if any(shift):
            x = torch.roll(x, shift, dims=(2, 3))
        return x[:, :, : grid[0], : grid[1]]

    def _mix(self, x: Tensor, padded: Grid, shift: Grid) -> Tensor:
        """Attention plus convolution of a padded and rolled map, (B, C, H, W) -> (B, H, W, C)."""
        tokens = x.permute(0, 2, 3, 1)
        convolved = None if self.conv_dw is None else self.conv_dw(x).permute(0, 2, 3, 1)
        if self.attention is None:
            return convolved
        mixed = self.attention(tokens, self._bias(padded, shift, x.device))
        if convolved is not None:  # the sum has the memory layout of its first operand: windows are put together here
            mixed = convolved.reshape(mixed.shape) + mixed
        return mixed.reshape(tokens.shape)


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
        self.local = ConvNeXtBlock(
            width,
            ls_init_value=None if paper else layer_scale,
            drop_path=0.0 if paper else drop_path,
            norm_layer=CONVNEXT_NORM,
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

    def __init__(
        self, *, width: int, heads: int, window: Grid, grid: Grid, shifted: bool, drop_path: float, **_: object
    ) -> None:
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


def convnext_block(*, width: int, drop_path: float, layer_scale: float, **_: object) -> ConvNeXtBlock:
    """ConvNeXt's block (Table 5, "CNX"), which is the first part of a PI block."""
    return ConvNeXtBlock(width, ls_init_value=layer_scale, drop_path=drop_path, norm_layer=CONVNEXT_NORM)
