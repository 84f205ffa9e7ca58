"""LeViT's translation-invariant attention bias: one learned value per head and absolute offset (|dy|, |dx|).

A table has shape (heads, H*W) with index ``|dy| * W + |dx|`` for a key grid of H x W tokens (LeViT, section 4.2; the
layout of timm's ``attention_biases``).
"""

from typing import Literal

import torch
from torch import Tensor

BiasPolicy = Literal["extend", "scale"]
BIAS_POLICIES: tuple[BiasPolicy, ...] = ("extend", "scale")


def expand_attention_bias(
    table: Tensor, *, table_grid: tuple[int, int], key_grid: tuple[int, int], query_stride: int = 1
) -> Tensor:
    """Bias of every query-key pair, shape (heads, queries, keys), from a table of shape (heads, H*W).

    Queries stand on every ``query_stride``-th row and column of the key grid. ``key_grid`` may be smaller than
    ``table_grid`` (its offsets are then a corner of the table), never larger. Nothing is cached: what was computed from
    one set of weights can not outlive it.
    """
    heads = table.shape[0]
    offsets = []
    for axis in (0, 1):
        if key_grid[axis] > table_grid[axis]:
            raise ValueError(
                f"the network was built for a token grid of {table_grid[0]}x{table_grid[1]} and got "
                f"{key_grid[0]}x{key_grid[1]}: build it with the image size that it is given, or resize its biases"
            )
        keys = torch.arange(key_grid[axis], device=table.device)
        offsets.append((keys[::query_stride, None] - keys[None, :]).abs())
    rows, columns = offsets
    (query_rows, key_rows), (query_columns, key_columns) = rows.shape, columns.shape
    bias = table.view(heads, *table_grid).index_select(1, rows.flatten())
    bias = bias.index_select(2, columns.flatten())
    bias = bias.view(heads, query_rows, key_rows, query_columns, key_columns)
    return bias.transpose(2, 3).reshape(heads, query_rows * query_columns, key_rows * key_columns)


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


def resize_attention_bias_table(
    table: Tensor, *, old_grid: tuple[int, int], new_grid: tuple[int, int], policy: BiasPolicy = "extend"
) -> Tensor:
    """Table (heads, h*w) for another key grid (heads, H*W), linear per axis, anchored at offset 0 and clamped.

    ``"extend"`` keeps the distance in tokens: trained values stay where they are and the farthest one is repeated
    beyond. ``"scale"`` keeps the distance relative to the image. Both leave the bias of a token to itself untouched,
    which a half-pixel resize of the table would not.
    """
    if policy not in BIAS_POLICIES:
        raise ValueError(f"bias policy {policy!r} is unknown: choose one of {', '.join(BIAS_POLICIES)}")
    heads, offsets = table.shape
    if offsets != old_grid[0] * old_grid[1]:
        raise ValueError(
            f"a bias table with {offsets} offsets does not belong to a grid of {old_grid[0]}x{old_grid[1]}"
        )
    if old_grid == new_grid:
        return table
    rows = _offset_interpolation(old_grid[0], new_grid[0], policy).to(table.device)
    columns = _offset_interpolation(old_grid[1], new_grid[1], policy).to(table.device)
    resized = rows @ table.double().view(heads, *old_grid) @ columns.T
    return resized.reshape(heads, -1).to(table.dtype)
