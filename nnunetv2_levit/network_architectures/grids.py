"""Sizes of token grids and feature maps."""

Grid = tuple[int, int]


def halved(size: Grid) -> Grid:
    """The grid that a stride of 2 leaves, rounded up as a 3x3 convolution with padding 1 does."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2
