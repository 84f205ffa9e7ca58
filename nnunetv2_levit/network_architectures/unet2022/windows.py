"""The windows of UNet-2022's stages: chosen by a rule, or given."""

from collections.abc import Sequence

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.grids import Grid, divide_rounding_up, stage_grids

STAGES = 4  # of the encoder; the decoder has all but the coarsest
SMALLEST_WINDOW = 7  # the paper's smallest


def encoder_grids(image_size: Grid, stem_stride: int) -> list[Grid]:
    """Grids of the four encoder stages for an image size in pixels."""
    return stage_grids(image_size, first_stride=stem_stride, stages=STAGES)


def _rule(side: int, stem_stride: int) -> tuple[int, int, int, int]:
    """Extents of the four windows along one axis; see `choose_windows`."""
    g = divide_rounding_up(side, 8 * stem_stride)
    m = 1
    while m < 4 and (m * g < SMALLEST_WINDOW or m < stem_stride / 4):
        m *= 2
    return m * g, m * g, 2 * g, g


def choose_windows(image_size: Grid, stem_stride: int) -> list[Grid]:
    """Windows of the four encoder stages, per axis, by one rule that yields the published lists.

    Let g be the bottleneck's extent, image size / (8 stem stride), rounded up. The third and fourth stage take windows
    of 2g and g: the whole map. The first and second take m g, where m is the smallest of 1, 2 and 4 with m g >= 7 and
    m >= stem stride / 4. Windows then divide every map of a size that is a multiple of 8 stem strides, and none is
    larger than its map.

    224 at stride 4: 7, 7, 14, 7; 320 at stride 4: 10, 10, 20, 10; 512 at stride 8: 16, 16, 16, 8 (the paper's list for
    EM; for ISIC it used 8, 8, 16, 8 at the same size, which ``windows=(8, 8, 16, 8)`` gives).
    """
    grids = encoder_grids(image_size, stem_stride)
    rows, columns = (_rule(side, stem_stride) for side in image_size)
    return [(min(row, grid[0]), min(column, grid[1])) for row, column, grid in zip(rows, columns, grids, strict=True)]


def given_windows(windows: Sequence[int | Grid], *, image_size: Grid, stem_stride: int) -> list[Grid]:
    """Windows given for the four encoder stages, a number or (height, width) each.

    Raises:
        UserError: not four of them, or one that is larger than its map, or smaller than 1.
    """
    if len(windows) != STAGES:
        raise UserError(f"UNet-2022 needs the windows of four stages, got {len(windows)}: {windows}")
    pairs = [(w, w) if isinstance(w, int) else (int(w[0]), int(w[1])) for w in windows]
    for number, (window, grid) in enumerate(zip(pairs, encoder_grids(image_size, stem_stride), strict=True), start=1):
        if not (1 <= window[0] <= grid[0] and 1 <= window[1] <= grid[1]):
            raise UserError(
                f"the window {window[0]}x{window[1]} of stage {number} does not fit its map of "
                f"{grid[0]}x{grid[1]} tokens: choose smaller windows or a larger patch"
            )
    return pairs
