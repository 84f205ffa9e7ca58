"""Sizes of images, token grids and feature maps, and checks of what a network is asked for."""

import torch.nn.functional as F
from torch import Tensor

from nnunetv2_levit.errors import UserError

Grid = tuple[int, int]


def check_blocks(name: str, blocks: int | None, most: int) -> None:
    """Raise a UserError unless ``blocks`` is None or a number of transformer blocks from 1 to ``most``."""
    if blocks is not None and (isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= most):
        raise UserError(f"{name} has 1 to {most} transformer blocks, not {blocks!r}")


def halved(size: Grid) -> Grid:
    """The grid that a stride of 2 leaves, rounded up as a 3x3 convolution with padding 1 does."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def check_channels(images: Tensor, in_channels: int) -> None:
    """Raise a UserError unless ``images`` is (B, in_channels, H, W)."""
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise UserError(
            f"the network was built for images of shape (B, {in_channels}, H, W) and got {tuple(images.shape)}: give "
            "that many channels, or build it for them"
        )


def token_grid(size: Grid, stride: int) -> Grid:
    """Tokens of a patch embedding of this stride over an image padded to a multiple of it."""
    return -(-size[0] // stride), -(-size[1] // stride)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zeros at the lower and right border of (B, C, H, W) up to multiples; the input itself where it fits already."""
    below, right = -images.shape[2] % multiple, -images.shape[3] % multiple
    return F.pad(images, (0, right, 0, below)) if below or right else images
