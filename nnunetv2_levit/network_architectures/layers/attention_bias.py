"""Attention with a learned bias that depends on the offset between two tokens only, and the tables that hold it.

LeViT's table has shape (heads, H*W) with index ``|dy| * W + |dx|`` for a key grid of H x W tokens (LeViT, section 4.2;
the layout of timm's ``attention_biases``). Swin's has shape ((2h-1) * (2w-1), heads) for windows of h x w tokens, with
signed offsets. Nothing is cached while weights may change: what was expanded from one set can not outlive it. Only the
copy that `fold_batch_norm` makes for inference keeps expanded biases.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.layers.size_constants import plain_number, size_constant

PRECOMPUTED_BIAS_LIMIT = 2**22  # elements of an expanded bias worth keeping: 16 MiB in fp32

BiasPolicy = Literal["extend", "scale"]
BIAS_POLICIES: tuple[BiasPolicy, ...] = ("extend", "scale")


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, in_float32: bool = True) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for (B, heads, tokens, d) and a bias (heads, queries, keys).

    Computed in the bias's precision (fp32 in training) whatever the autocast: LeViT's pretrained biases have a standard
    deviation of about 5. With ``in_float32=False`` the operands and the bias have the precision that autocast gave the
    query; products are added, and the softmax is taken, in fp32 inside the kernel.
    """
    if not in_float32:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).unsqueeze(0))
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(bias.dtype, torch.float32)
        out = F.scaled_dot_product_attention(
            query.to(dtype), key.to(dtype), value.to(dtype), attn_mask=bias.to(dtype).unsqueeze(0)
        )
    return out.to(value.dtype)


def _distances(keys: int, stride: int) -> np.ndarray:
    """Distance of each key from every ``stride``-th one, (queries * keys,)."""
    positions = np.arange(keys)
    return np.abs(positions[::stride, None] - positions[None, :]).ravel()


def _offsets(side: int) -> np.ndarray:
    """Signed offset of each position of a window from each, counted from 0: (side * side,)."""
    positions = np.arange(side)
    return (positions[:, None] - positions[None, :] + side - 1).ravel()


def _expand(table: Tensor, rows: Tensor, columns: Tensor, key_grid: Grid) -> Tensor:
    """Bias (heads, queries, keys) from a table (heads, R, C) and the index of each pair of rows and of columns."""
    bias = table.index_select(1, rows).index_select(2, columns)
    bias = bias.unflatten(2, (-1, key_grid[1])).unflatten(1, (-1, key_grid[0]))
    return bias.transpose(2, 3).flatten(3).flatten(1, 2)


def expand_attention_bias(table: Tensor, *, table_grid: Grid, key_grid: Grid, query_stride: int = 1) -> Tensor:
    """Bias of every query-key pair, shape (heads, queries, keys), from LeViT's table (heads, H*W).

    Queries stand on every ``query_stride``-th row and column of the key grid. ``key_grid`` may be smaller than
    ``table_grid`` (its offsets are then a corner of the table), never larger.

    Raises:
        UserError: ``key_grid`` is larger than ``table_grid``.
    """
    if key_grid[0] > table_grid[0] or key_grid[1] > table_grid[1]:
        raise UserError(
            f"the network was built for a token grid of {table_grid[0]}x{table_grid[1]} and got "
            f"{key_grid[0]}x{key_grid[1]}: build it with the image size that it is given, or resize its biases"
        )
    rows, columns = (
        size_constant(_distances, (plain_number(keys), query_stride), torch.long, table.device) for keys in key_grid
    )
    return _expand(table.view(-1, *table_grid), rows, columns, key_grid)


def expand_relative_position_bias(table: Tensor, *, window: Grid) -> Tensor:
    """Bias (heads, tokens, tokens) of one window from Swin's table ((2h-1) * (2w-1), heads)."""
    rows, columns = (size_constant(_offsets, (side,), torch.long, table.device) for side in window)
    return _expand(table.T.reshape(-1, 2 * window[0] - 1, 2 * window[1] - 1), rows, columns, window)


def _offset_interpolation(old: int, new: int, policy: BiasPolicy) -> Tensor:
    """Matrix (new, old) that reads a table of ``old`` offsets at ``new`` offsets; offset 0 always reads offset 0."""
    position = torch.arange(new, dtype=torch.float64)
    if policy == "scale":
        position *= old / new
    position = position.clamp(max=old - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=old - 1)
    fraction = position - lower
    matrix = torch.zeros(new, old, dtype=torch.float64)
    index = torch.arange(new)
    matrix[index, lower] += 1 - fraction
    matrix[index, upper] += fraction
    return matrix


def _signed_offset_interpolation(old: int, new: int, policy: BiasPolicy) -> Tensor:
    """The same for offsets from -(n-1) to n-1: matrix (2 new - 1, 2 old - 1)."""
    positive = _offset_interpolation(old, new, policy)
    matrix = torch.zeros(2 * new - 1, 2 * old - 1, dtype=torch.float64)
    matrix[new - 1 :, old - 1 :] = positive
    matrix[:new, :old] = positive.flip(0, 1)
    return matrix


def _resize(table: Tensor, *, rows: Tensor, columns: Tensor) -> Tensor:
    """Table (heads, r, c) resized by interpolation matrices (R, r) and (C, c)."""
    resized = rows.to(table.device) @ table.double() @ columns.to(table.device).T
    return resized.to(table.dtype)


def check_bias_policy(policy: str) -> None:
    """Raise a UserError unless ``policy`` is one of `BIAS_POLICIES`."""
    if policy not in BIAS_POLICIES:
        raise UserError(f"bias policy {policy!r} is unknown: choose one of {', '.join(BIAS_POLICIES)}")


def _check_table(*, offsets: int, expected: int, grid: Grid) -> None:
    if offsets != expected:
        raise UserError(f"a bias table with {offsets} offsets does not belong to a grid of {grid[0]}x{grid[1]}")


def resize_attention_bias_table(
    table: Tensor, *, old_grid: Grid, new_grid: Grid, policy: BiasPolicy = "extend"
) -> Tensor:
    """LeViT's table (heads, h*w) for another key grid (heads, H*W), linear per axis, anchored at offset 0 and clamped.

    ``"extend"`` keeps the distance in tokens: trained values stay where they are and the farthest one is repeated
    beyond. ``"scale"`` keeps the distance relative to the image. Both leave the bias of a token to itself untouched,
    which a half-pixel resize of the table would not.

    Raises:
        UserError: the table does not belong to the old grid, or the policy is unknown.
    """
    check_bias_policy(policy)
    _check_table(offsets=table.shape[1], expected=old_grid[0] * old_grid[1], grid=old_grid)
    if old_grid == new_grid:
        return table
    rows, columns = (_offset_interpolation(old, new, policy) for old, new in zip(old_grid, new_grid, strict=True))
    return _resize(table.view(-1, *old_grid), rows=rows, columns=columns).flatten(1)


def resize_relative_position_table(
    table: Tensor, *, old_window: Grid, new_window: Grid, policy: BiasPolicy = "extend"
) -> Tensor:
    """Swin's table ((2h-1) * (2w-1), heads) for another window, by the same rules and with the same errors."""
    height, width = 2 * old_window[0] - 1, 2 * old_window[1] - 1
    check_bias_policy(policy)
    _check_table(offsets=table.shape[0], expected=height * width, grid=old_window)
    if old_window == new_window:
        return table
    rows, columns = (
        _signed_offset_interpolation(old, new, policy) for old, new in zip(old_window, new_window, strict=True)
    )
    return _resize(table.T.reshape(-1, height, width), rows=rows, columns=columns).flatten(1).T.contiguous()
