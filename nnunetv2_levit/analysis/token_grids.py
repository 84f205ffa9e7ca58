"""Where tokens lie in the image: windows put back in their place, LeViT's subsampling queries on their own grid.

A token stands for the square of ``stride`` pixels at its place of the grid, and its position is that square's centre.
All positions are in pixels of the network's input, (row, column).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2_levit.network_architectures.layers.grids import Grid


def _centres(indices: np.ndarray, grid: Grid, stride: int) -> np.ndarray:
    """Centres in pixels, (..., 2), of tokens given by their flat indices in a grid."""
    rows, columns = np.divmod(indices, grid[1])
    return (np.stack([rows, columns], axis=-1) + 0.5) * stride


@dataclass(frozen=True)
class TokenGrid:
    """Queries and keys of one attention layer, in the groups that attend to each other.

    A global layer is one group; a window layer has a group for each window.

    Attributes:
        grid: tokens (rows, columns) over the image.
        padded: the same with the padding that fills up windows.
        stride: extent of a token in pixels.
        queries: (groups, Q) flat indices of the queries in ``padded``.
        keys: (groups, K) those of the keys.
        query_stride: 2 where queries stand on every second token only.
        allowed: (groups, Q, K), False where a mask separates tokens that rolling brought together; None for no mask.
    """

    grid: Grid
    padded: Grid
    stride: int
    queries: np.ndarray
    keys: np.ndarray
    query_stride: int = 1
    allowed: np.ndarray | None = None

    @cached_property
    def query_centres(self) -> np.ndarray:
        """(groups, Q, 2)."""
        return _centres(self.queries, self.padded, self.stride)

    @cached_property
    def key_centres(self) -> np.ndarray:
        """(groups, K, 2)."""
        return _centres(self.keys, self.padded, self.stride)

    def _inside(self, indices: np.ndarray) -> np.ndarray:
        rows, columns = np.divmod(indices, self.padded[1])
        return (rows < self.grid[0]) & (columns < self.grid[1])

    @cached_property
    def queries_inside(self) -> np.ndarray:
        """(groups, Q), False for tokens of the padding."""
        return self._inside(self.queries)

    @property
    def query_grid(self) -> Grid:
        """Rows and columns of the queries that are not padding."""
        rows, columns = (-(-side // self.query_stride) for side in self.grid)
        return rows, columns

    def distances(self, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """Distance of each query from each key of its group, (groups, Q, K), in pixels times ``spacing``."""
        difference = (self.query_centres[:, :, None] - self.key_centres[:, None]) * np.asarray(spacing)
        return np.sqrt((difference**2).sum(axis=-1))

    def uniform(self) -> np.ndarray:
        """Attention that looks at every key alike, as far as the mask lets it: (groups, 1, Q, K)."""
        shape = (*self.queries.shape, self.keys.shape[1])
        allowed = np.ones(shape) if self.allowed is None else self.allowed.astype(float)
        return (allowed / allowed.sum(axis=-1, keepdims=True))[:, None]

    def locate(self, place: tuple[float, float]) -> tuple[int, int]:
        """Group and number of the query whose centre is nearest to a place in pixels, the first of several."""
        distance = np.linalg.norm(self.query_centres - np.asarray(place, dtype=float), axis=-1)
        distance[~self.queries_inside] = np.inf
        group, number = np.unravel_index(int(distance.argmin()), distance.shape)
        return int(group), int(number)

    def key_map(self, values: np.ndarray, group: int) -> np.ndarray:
        """Values (K,) of one group's keys at their places, (rows, columns); NaN where the group has no key."""
        result = np.full(self.padded[0] * self.padded[1], np.nan)
        result[self.keys[group]] = values
        return result.reshape(self.padded)[: self.grid[0], : self.grid[1]]

    def all_keys_map(self, values: np.ndarray) -> np.ndarray:
        """Values (groups, K) of all keys at their places, (rows, columns)."""
        result = np.zeros(self.padded[0] * self.padded[1])
        result[self.keys] = values
        return result.reshape(self.padded)[: self.grid[0], : self.grid[1]]

    def share_in_keys(self, mask: np.ndarray) -> np.ndarray:
        """Share of each key's square that a structure covers, (groups, K), from its mask (H, W); 0 in the padding."""
        shares = np.zeros(self.padded)
        shares[: self.grid[0], : self.grid[1]] = token_shares(mask, self.grid, self.stride)
        return shares.ravel()[self.keys]

    def share_in_queries(self, mask: np.ndarray) -> np.ndarray:
        """The same of the queries' squares, (groups, Q)."""
        shares = np.zeros(self.padded)
        shares[: self.grid[0], : self.grid[1]] = token_shares(mask, self.grid, self.stride)
        return shares.ravel()[self.queries]


def token_shares(mask: np.ndarray, grid: Grid, stride: int) -> np.ndarray:
    """Share of each token's square that a mask (H, W) covers: (rows, columns); what lies beyond the image is not it."""
    height, width = grid[0] * stride, grid[1] * stride
    padded = np.zeros((max(height, mask.shape[0]), max(width, mask.shape[1])))
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded[:height, :width].reshape(grid[0], stride, grid[1], stride)
    return cells.mean(axis=(1, 3))


def global_tokens(grid: Grid, *, stride: int, query_stride: int = 1) -> TokenGrid:
    """All tokens attend to all; with ``query_stride`` 2 only every second row and column of them asks."""
    indices = np.arange(grid[0] * grid[1]).reshape(grid)
    queries = indices[::query_stride, ::query_stride].reshape(1, -1)
    return TokenGrid(
        grid=grid, padded=grid, stride=stride, queries=queries, keys=indices.reshape(1, -1), query_stride=query_stride
    )


def window_tokens(
    grid: Grid, *, stride: int, window: Grid, padded: Grid, shift: Grid, mask: np.ndarray | None = None
) -> TokenGrid:
    """Tokens attend within windows of a map that was padded and rolled by ``shift`` towards the upper left.

    Args:
        mask: (windows, T, T), below 0 where two tokens of a window were no neighbours before the roll.
    """
    indices = np.arange(padded[0] * padded[1]).reshape(padded)
    rolled = np.roll(indices, (-shift[0], -shift[1]), axis=(0, 1))
    rows, columns = padded[0] // window[0], padded[1] // window[1]
    groups = rolled.reshape(rows, window[0], columns, window[1]).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    allowed = None if mask is None else mask >= 0
    return TokenGrid(grid=grid, padded=padded, stride=stride, queries=groups, keys=groups, allowed=allowed)
