"""A convolution of bilinearly upsampled maps, computed on the maps before they are upsampled.

A 3x3 convolution is a sum over nine taps, each a matrix over the channels followed by a shift of the map. Upsampling
acts on each channel by itself, so it commutes with that matrix: the channels can be mixed on the small map, a quarter
of the pixels where the map is doubled. Upsampling, shift and zero padding are linear and separable; with A[t] the
(H, h) interpolation matrix whose rows are shifted by t = -1, 0, 1 with zeros moved in,

    y   = nine 1x1 convolutions of x                      (B, 3, 3, O, h, w)
    out = sum over ty, tx of A[ty] y[ty, tx] A[tx]^T      (B, O, H, W)

Exact up to rounding, zero padding included. Sources of several resolutions are mixed each on its own grid; resizes that
follow one another are one product of matrices. A 1x1 convolution simply changes places with the upsampling, with its
bias, as the weights of an interpolation sum to 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import Grid, spatial_size
from nnunetv2_levit.network_architectures.layers.size_constants import plain_number, size_constant

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # since torch 2.7


class Source(NamedTuple):
    """A map (B, C, h, w) and the sizes that it is resized to, one after another; none where it has its size."""

    map: Tensor
    sizes: tuple[Grid, ...] = ()

    def grids(self) -> tuple[Grid, ...]:
        """All sizes, the map's own first, as plain numbers."""
        sizes = (spatial_size(self.map), *self.sizes)
        return tuple((plain_number(height), plain_number(width)) for height, width in sizes)


def resized_sources(
    maps: Sequence[Tensor], size: Grid, *, steps: Sequence[Sequence[Grid]] | None = None
) -> list[Source]:
    """Maps that are to be resized to ``size``, each first through its own ``steps`` where there are any."""
    if steps is None:
        return [Source(x, (size,)) for x in maps]
    return [Source(x, (*own, size)) for x, own in zip(maps, steps, strict=True)]


def upsample(x: Tensor, size: Grid) -> Tensor:
    """Bilinear resize of (B, C, h, w) to ``size`` with aligned corners; the input itself where it fits already.

    The output has the precision of ``x``. Autocast would compute it in fp32 and leave it so, copies before and after
    included; only the backward pass needs that, which adds up many values of the finer map.
    """
    if spatial_size(x) == size:
        return x
    if x.requires_grad:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True).to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def resize(source: Source) -> Tensor:
    """The source's map at the last of its sizes."""
    x = source.map
    for size in source.sizes:
        x = upsample(x, size)
    return x


def concatenate(sources: Sequence[Source]) -> Tensor:
    """The resized sources as one map; a single one without a copy."""
    maps = [resize(source) for source in sources]
    return torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]


def _interpolation(old: int, new: int) -> np.ndarray:
    """Linear interpolation with aligned corners as a matrix (new, old)."""
    position = np.arange(new) * ((old - 1) / max(new - 1, 1))
    return np.clip(1 - np.abs(position[:, None] - np.arange(old)[None, :]), 0, None)


def _taps(sides: Sequence[int]) -> np.ndarray:
    """The chained interpolation through ``sides`` for each tap of the kernel: (3, last, first)."""
    matrix = np.eye(sides[0])
    for old, new in pairwise(sides):
        if old != new:
            matrix = _interpolation(old, new) @ matrix
    padded = np.pad(matrix, ((1, 1), (0, 0)))
    return np.stack([padded[tap : tap + len(matrix)] for tap in range(3)])


def _row_matrix(*chains: tuple[int, ...]) -> np.ndarray:
    """(H, sum of 3 h): for each source the taps side by side, columns in the order (tap, row)."""
    return np.concatenate([np.concatenate(_taps(sides), axis=1) for sides in chains], axis=1)


def _column_matrix(sides: tuple[int, ...]) -> np.ndarray:
    """(W, 3 w): columns in the order (column, tap), as the mixed channels lie in memory."""
    taps = _taps(sides)
    return taps.transpose(1, 2, 0).reshape(taps.shape[1], -1)


def pack_weight(weight: Tensor) -> Tensor:
    """A kernel (O, C, 3, 3) as the matrices of its taps, (9 O, C) in the order (row tap, column tap, O)."""
    return weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1])


def _mix(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution (B, C, h, w) -> (B, h, w, N), N outermost in ``weight`` (N, C)."""
    if x.device.type == "cpu" and not _is_exporting():
        # oneDNN's convolution is up to twice as fast as the matrix product there (docs/lab/speed.md)
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight[:, :, None, None], bias).permute(0, 2, 3, 1).contiguous()
    return F.linear(x.permute(0, 2, 3, 1), weight, bias)


def mixed_before_upsampling(sources: Sequence[Source], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """The convolution of the resized and concatenated sources, (B, O, H, W) in channels-last memory.

    ``weights`` holds the packed kernel of each source's channels.
    """
    height, width = sources[0].grids()[-1]
    batch, out_channels = sources[0].map.shape[0], weights[0].shape[0] // 9
    # each interpolation's weights sum to 1, so a bias of the middle tap on the small map is one of the output
    middle = None if bias is None else F.pad(bias, (out_channels, out_channels))
    heights, mixed = [], []
    for index, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        grids = source.grids()
        h, w = grids[0]
        heights.append(tuple(grid[0] for grid in grids))
        widths = tuple(grid[1] for grid in grids)
        for tap, tap_weight in enumerate(weight.chunk(3)):
            y = _mix(source.map, tap_weight, middle if index == 0 and tap == 1 else None)
            columns = size_constant(_column_matrix, (widths,), y.dtype, y.device)
            y = torch.matmul(columns, y.reshape(batch * h, 3 * w, out_channels))
            mixed.append(y.view(batch, h, width * out_channels))
    rows = size_constant(_row_matrix, tuple(heights), y.dtype, y.device)
    out = torch.matmul(rows, torch.cat(mixed, dim=1))
    return out.view(batch, height, width, out_channels).permute(0, 3, 1, 2)


def pointwise_before_upsampling(sources: Sequence[Source], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of the resized and concatenated sources, (B, O, H, W); ``weights`` are (O, C, 1, 1)."""
    first, *others = [
        resize(Source(F.conv2d(source.map, weight, bias if index == 0 else None), source.sizes))
        for index, (source, weight) in enumerate(zip(sources, weights, strict=True))
    ]
    out = first
    for other in others:
        out = out + other
    return out


def _multiply_adds(source: Source, out_channels: int) -> tuple[int, int, int]:
    """Of one source and one image: mixing after upsampling, mixing before it, and the contractions after that."""
    channels = source.map.shape[1]
    grids = source.grids()
    (h, w), (height, width) = grids[0], grids[-1]
    mixing = 9 * channels * out_channels
    contractions = 3 * h * width * out_channels * (3 * w + height)
    return height * width * mixing, h * w * mixing, contractions


# By how much a multiply-add of the contractions costs more than one of a convolution; see docs/lab/speed.md for how
# it was measured on a CPU. On CUDA both are matrix products and the contractions move more memory: not measured yet.
CONTRACTION_COST = {"cpu": 3.0, "cuda": 3.0}


def pays(source: Source, out_channels: int, kernel: int = 3) -> bool:
    """Whether a source is better mixed before its upsampling.

    A 1x1 convolution: where the map grows and has no more channels to upsample afterwards. A 3x3 convolution: by
    multiply-adds, weighted per device type.
    """
    grids = source.grids()
    if grids[0] == grids[-1]:
        return False
    if kernel == 1:
        return prod(grids[0]) < prod(grids[-1]) and out_channels <= source.map.shape[1]
    direct, mixing, contractions = _multiply_adds(source, out_channels)
    return mixing + CONTRACTION_COST.get(source.map.device.type, 3.0) * contractions < direct


class UpsampledConv2d(nn.Conv2d):
    """1x1 convolution, or 3x3 with padding 1, of resized sources, concatenated in order; parameters are a Conv2d's.

    ``forward`` takes sources whose last sizes agree, with the channels given at construction, and returns
    (B, out_channels, H, W). Each source is mixed before or after its upsampling, whichever `pays`.
    """

    def __init__(
        self, source_channels: Sequence[int], out_channels: int, kernel: int = 3, *, bias: bool = False
    ) -> None:
        if kernel not in (1, 3):
            raise ValueError(f"the kernel is 1 or 3, not {kernel}")
        super().__init__(sum(source_channels), out_channels, kernel, padding=kernel // 2, bias=bias)
        self.source_channels = tuple(source_channels)
        self.precomputed = False

    def precompute(self) -> None:
        """Keep the kernel packed (see `fold_batch_norm`): packing it costs a copy at each call otherwise."""
        self.precomputed = True
        with torch.no_grad():
            for index, weight in enumerate(self.weight.split(self.source_channels, dim=1)):
                self.register_buffer(f"packed_{index}", self._pack(weight).contiguous(), persistent=False)

    def _pack(self, weight: Tensor) -> Tensor:
        return weight if self.kernel_size == (1, 1) else pack_weight(weight)

    def _packed(self, index: int, weight: Tensor) -> Tensor:
        """The packed kernel ``weight`` of the source with that index."""
        return getattr(self, f"packed_{index}") if self.precomputed else self._pack(weight)

    def forward(self, sources: Sequence[Source]) -> Tensor:  # type: ignore[override]
        kernel = self.kernel_size[0]
        before = [index for index, source in enumerate(sources) if pays(source, self.out_channels, kernel)]
        after = [index for index in range(len(sources)) if index not in before]
        if not before:
            return F.conv2d(concatenate(sources), self.weight, self.bias, padding=kernel // 2)
        weights = self.weight.split(self.source_channels, dim=1)
        compute = pointwise_before_upsampling if kernel == 1 else mixed_before_upsampling
        out = compute([sources[i] for i in before], [self._packed(i, weights[i]) for i in before], self.bias)
        if after:
            weight = torch.cat([weights[i] for i in after], dim=1) if len(after) > 1 else weights[after[0]]
            out = out + F.conv2d(concatenate([sources[i] for i in after]), weight, padding=kernel // 2)
        return out
