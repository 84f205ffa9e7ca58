"""Sizes of images, token grids and feature maps, (height, width) throughout."""

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


def spatial_size(x: Tensor) -> Grid:
    """Height and width of (B, C, H, W)."""
    return x.shape[2], x.shape[3]


def divide_rounding_up(size: int, divisor: int) -> int:
    """How many pieces of ``divisor`` cover ``size``."""
    return -(-size // divisor)


def halved(size: Grid) -> Grid:
    """The grid that a stride of 2 leaves, rounded up as a 3x3 convolution with padding 1 does."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def halvings(stride: int) -> int:
    """How many strides of 2 make a ``stride``, a power of 2."""
    count = 0
    while stride > 1:
        stride //= 2
        count += 1
    return count


def stage_grids(image_size: Grid, *, first_stride: int, stages: int) -> list[Grid]:
    """Grids of ``stages`` stages: the first at ``first_stride`` (a power of 2), each following at twice the stride."""
    grid = image_size
    for _ in range(halvings(first_stride)):
        grid = halved(grid)
    grids = [grid]
    while len(grids) < stages:
        grids.append(halved(grids[-1]))
    return grids


def token_grid(size: Grid, patch: int) -> Grid:
    """Tokens of ``patch`` pixels a side over an image padded to a multiple of it."""
    return divide_rounding_up(size[0], patch), divide_rounding_up(size[1], patch)


def pad(x: Tensor, size: Grid) -> Tensor:
    """Zeros at the lower and right border of (B, C, h, w) up to ``size``; the input itself where it fits already."""
    below, right = size[0] - x.shape[2], size[1] - x.shape[3]
    return F.pad(x, (0, right, 0, below)) if below or right else x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """The same up to multiples of ``multiple``."""
    rows, columns = token_grid(spatial_size(x), multiple)
    return pad(x, (rows * multiple, columns * multiple))


def crop(x: Tensor, size: Grid) -> Tensor:
    """The upper left part of (B, C, h, w) of that size; the input itself where it fits already."""
    return x if spatial_size(x) == size else x[:, :, : size[0], : size[1]]
