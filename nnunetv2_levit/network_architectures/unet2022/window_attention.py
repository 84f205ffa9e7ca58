"""Window attention and depth-wise convolution side by side, on shifted windows (Swin's; UNet-2022, section 3.2).

Feature maps are (B, C, H, W) in channels-last memory throughout: layer norms and linear layers then see (B, H, W, C)
without a copy, and so do the depth-wise convolutions.
"""

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.attention_bias import (
    PRECOMPUTED_BIAS_LIMIT,
    biased_attention,
    expand_relative_position_bias,
)
from nnunetv2_levit.network_architectures.layers.attention_observer import AttentionObserver
from nnunetv2_levit.network_architectures.layers.depthwise_convolution import DepthwiseConv2d
from nnunetv2_levit.network_architectures.layers.grids import Grid, crop, divide_rounding_up, pad, spatial_size

MASKED = -100.0  # Swin's


def _regions(extent: int, window: int, shift: int) -> Tensor:
    """Along one axis of the rolled map, in which of three regions a position lies: (extent,), 0 to 2.

    Tokens of different regions that meet in a window were no neighbours before the roll.
    """
    region = torch.zeros(extent, dtype=torch.long)
    if shift:
        region[-window:] = 1
        region[-shift:] = 2
    return region


def shift_mask(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """What separates tokens that a cyclic shift brought into one window: (windows, tokens, tokens), 0 or -100.

    ``grid`` is the padded map, a multiple of ``window``.
    """
    row_regions, column_regions = (_regions(*sizes) for sizes in zip(grid, window, shift, strict=True))
    regions = 3 * row_regions[:, None] + column_regions[None, :]
    # windows apart, tokens of each in a row
    rows, columns = grid[0] // window[0], grid[1] // window[1]
    tokens = regions.view(rows, window[0], columns, window[1]).transpose(1, 2).reshape(rows * columns, -1)
    return MASKED * (tokens[:, :, None] != tokens[:, None, :]).float()


def _rolled(x: Tensor, shift: Grid) -> Tensor:
    """A map (B, H, W, C) moved downwards and to the right.

    As (B, C, H, W) it would not stay channels-last: on CUDA what `torch.roll` returns is contiguous.
    """
    return torch.roll(x, shift, dims=(1, 2))


class WindowAttention(nn.Module):
    """Swin's window attention without its output projection. QKV has a bias; so has each pair of positions in a window
    (one table for all windows).

    ``forward`` takes (B, H, W, C), H and W multiples of the window h x w, and the `bias`; it returns a view
    (B, H / h, h, W / w, w, heads, C / heads), which lies in memory window by window.
    """

    observer: AttentionObserver | None = None

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
        query, key, value = qkv.unbind(0)
        if self.observer is not None:
            self.observer(query, key, value, bias)
        out = biased_attention(query, key, value, bias, in_float32=False)
        return out.reshape(batch, rows, columns, self.heads, wh, ww, depth).permute(0, 1, 4, 2, 5, 3, 6)

    def attend_to_itself(self, x: Tensor, bias: Tensor) -> Tensor:
        """The output if every token attended to itself alone, in the shape of the forward pass."""
        batch, height, width, channels = x.shape
        value = self.qkv(x)[..., 2 * channels :]
        (wh, ww), depth = self.window, channels // self.heads
        return value.reshape(batch, height // wh, wh, width // ww, ww, self.heads, depth)


class WindowedMixing(nn.Module):
    """Pads a map to whole windows, rolls it, mixes it by window attention and/or a 7x7 depth-wise convolution, projects
    it and rolls it back: (B, C, H, W) -> (B, C, H, W).

    The convolution sees the padded and rolled map as a whole, without mask, as the authors' code does. Where a window
    covers an axis of the map, that axis is not shifted. ``project_with_residual`` adds what is projected to its
    projection (Eq. 4).
    """

    mask: Tensor | None
    precomputed_bias: Tensor | None

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
            raise UserError("the second part of a PI block needs its attention or its convolution")
        self.window, self.shifted, self.project_with_residual = window, shifted, project_with_residual
        self.attention = WindowAttention(width=width, heads=heads, window=window) if attention else None
        self.conv_dw = DepthwiseConv2d(width, width, 7, padding=3, groups=width) if convolution else None
        self.proj = nn.Linear(width, width)
        self.grid = self.padded(grid)
        mask = shift_mask(self.grid, window, self.shift(grid)) if attention and any(self.shift(grid)) else None
        self.register_buffer("mask", mask, persistent=False)  # depends on sizes alone, never on weights
        self.register_buffer("precomputed_bias", None, persistent=False)

    def padded(self, grid: Grid) -> Grid:
        """The map's size in whole windows."""
        (height, width), (wh, ww) = grid, self.window
        return divide_rounding_up(height, wh) * wh, divide_rounding_up(width, ww) * ww

    def shift(self, grid: Grid) -> Grid:
        """By how many rows and columns a map of this size is rolled, towards the upper left."""
        if not self.shifted:
            return 0, 0
        rows, columns = (side // 2 if side < extent else 0 for side, extent in zip(self.window, grid, strict=True))
        return rows, columns

    def _bias(self, attention: WindowAttention, padded: Grid, shift: Grid) -> Tensor:
        if padded != self.grid:  # another size than the network was built for
            device = attention.relative_position_bias_table.device
            return attention.bias(shift_mask(padded, self.window, shift).to(device) if any(shift) else None)
        return attention.bias(self.mask) if self.precomputed_bias is None else self.precomputed_bias

    def precompute(self) -> None:
        """Keep bias and mask added up, where they are small (see `fold_batch_norm`)."""
        if self.attention is not None:
            bias = self.attention.bias(self.mask).detach()
            self.precomputed_bias = bias if bias.numel() <= PRECOMPUTED_BIAS_LIMIT else None

    def forward(self, x: Tensor) -> Tensor:
        grid = spatial_size(x)
        padded, shift = self.padded(grid), self.shift(grid)
        x = pad(x, padded)
        if any(shift):
            x = _rolled(x.permute(0, 2, 3, 1), (-shift[0], -shift[1])).permute(0, 3, 1, 2)
        mixed = self._mix(x, padded, shift)
        x = self.proj(mixed)
        if self.project_with_residual:
            x = x + mixed
        if any(shift):
            x = _rolled(x, shift)
        return crop(x.permute(0, 3, 1, 2), grid)

    def _mix(self, x: Tensor, padded: Grid, shift: Grid) -> Tensor:
        """Attention plus convolution of a padded and rolled map, (B, C, H, W) -> (B, H, W, C)."""
        tokens = x.permute(0, 2, 3, 1)
        if self.attention is None:
            assert self.conv_dw is not None  # as the constructor makes sure
            return self.conv_dw(x).permute(0, 2, 3, 1)
        if self.conv_dw is None:
            return self.attention(tokens, self._bias(self.attention, padded, shift)).reshape(tokens.shape)
        convolved = self.conv_dw(x).permute(0, 2, 3, 1)
        mixed = self.attention(tokens, self._bias(self.attention, padded, shift))
        # the sum has the memory layout of its first operand: windows are put together here
        return (convolved.reshape(mixed.shape) + mixed).reshape(tokens.shape)
