"""A 3x3 convolution of bilinearly upsampled maps, computed on the maps before they are upsampled.

The convolution is a sum over nine taps, each a matrix over the channels followed by a shift of the map. Upsampling acts
on each channel by itself, so it commutes with that matrix: the channels can be mixed on the small map, a quarter of the
pixels where the map is doubled. Upsampling, shift and zero padding are linear and separable; with A[t] the (H, h)
interpolation matrix whose rows are shifted by t = -1, 0, 1 with zeros moved in,

    y   = nine 1x1 convolutions of x                      (B, 3, 3, O, h, w)
    out = sum over ty, tx of A[ty] y[ty, tx] A[tx]^T      (B, O, H, W)

Exact up to rounding, zero padding included. Sources of several resolutions are mixed each on its own grid; resizes that
follow one another are one product of matrices.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.grids import Grid


class Source(NamedTuple):
    """A map (B, C, h, w) and the sizes that it is resized to, one after another; none where it has its size."""

    map: Tensor
    sizes: tuple[Grid, ...] = ()

    def grids(self) -> tuple[Grid, ...]:
        return (tuple(self.map.shape[2:]), *self.sizes)


def upsample(x: Tensor, size: Grid) -> Tensor:
    """Bilinear resize of (B, C, h, w) to ``size`` with aligned corners; the input itself where it fits already."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def resize(source: Source) -> Tensor:
    """The source's map at the last of its sizes."""
    x = source.map
    for size in source.sizes:
        x = upsample(x, size)
    return x


def _interpolation(old: int, new: int) -> Tensor:
    """Linear interpolation with aligned corners as a matrix (new, old)."""
    position = torch.arange(new, dtype=torch.float64) * ((old - 1) / max(new - 1, 1))
    distance = (position[:, None] - torch.arange(old, dtype=torch.float64)[None, :]).abs()
    return (1 - distance).clamp(min=0)


def _taps(sides: Sequence[int]) -> Tensor:
    """The chained interpolation through ``sides`` for each tap of the kernel: (3, last, first)."""
    matrix = torch.eye(sides[0], dtype=torch.float64)
    for old, new in pairwise(sides):
        if old != new:
            matrix = _interpolation(old, new) @ matrix
    return F.pad(matrix, (0, 0, 1, 1)).unfold(0, matrix.shape[0], 1).permute(0, 2, 1)


def _row_matrix(chains: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(H, sum of 3 h): for each source the taps side by side, columns in the order (tap, row)."""
    with torch.inference_mode(False):  # cached, and training may need it later
        return torch.cat([_taps(sides).permute(1, 0, 2).flatten(1) for sides in chains], dim=1).to(device, dtype)


def _column_matrix(sides: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(W, 3 w): columns in the order (column, tap), as the mixed channels lie in memory."""
    with torch.inference_mode(False):
        return _taps(sides).permute(1, 2, 0).flatten(1).to(device, dtype)


# Constants of sizes alone, so that nothing cached depends on weights. Never filled while a graph is traced: a fake
# tensor would stay behind.
_cached_row_matrix = lru_cache(maxsize=256)(_row_matrix)
_cached_column_matrix = lru_cache(maxsize=256)(_column_matrix)


def _matrices(
    grids: Sequence[tuple[Grid, ...]], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    tracing = torch.compiler.is_compiling()
    row, column = (_row_matrix, _column_matrix) if tracing else (_cached_row_matrix, _cached_column_matrix)
    chains = [tuple(zip(*chain, strict=True)) for chain in grids]
    rows = row(tuple(vertical for vertical, _ in chains), dtype, device)
    return rows, [column(horizontal, dtype, device) for _, horizontal in chains]


def pack_weight(weight: Tensor) -> Tensor:
    """A kernel (O, C, 3, 3) as the matrices of its taps, (9 O, C) in the order (row tap, column tap, O)."""
    return weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1])


def _mix(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution (B, C, h, w) -> (B, h, w, N), N outermost in ``weight`` (N, C)."""
    if x.device.type == "cpu" and not torch.compiler.is_exporting():
        # oneDNN's convolution is up to twice as fast as the matrix product there (docs/performance.md)
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight[:, :, None, None], bias).permute(0, 2, 3, 1).contiguous()
    return F.linear(x.permute(0, 2, 3, 1), weight, bias)


def mixed_before_upsampling(sources: Sequence[Source], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """The convolution of the resized and concatenated sources, (B, O, H, W) in channels-last memory.

    ``weights`` holds the packed kernel of each source's channels.
    """
    height, width = sources[0].sizes[-1]
    batch, out_channels = sources[0].map.shape[0], weights[0].shape[0] // 9
    # each interpolation's weights sum to 1, so a bias of the middle tap on the small map is one of the output
    middle = None if bias is None else F.pad(bias, (out_channels, out_channels))
    rows, columns, mixed = None, None, []
    for index, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        h, w = source.map.shape[2:]
        for tap, tap_weight in enumerate(weight.chunk(3)):
            y = _mix(source.map, tap_weight, middle if index == 0 and tap == 1 else None)
            if rows is None:
                rows, columns = _matrices([s.grids() for s in sources], y.dtype, y.device)
            y = torch.matmul(columns[index], y.reshape(batch * h, 3 * w, out_channels))
            mixed.append(y.view(batch, h, width * out_channels))
    out = torch.matmul(rows, torch.cat(mixed, dim=1))
    return out.view(batch, height, width, out_channels).permute(0, 3, 1, 2)


def _multiply_adds(source: Source, out_channels: int) -> tuple[int, int, int]:
    """Of one source and one image: mixing after upsampling, mixing before it, and the contractions after that."""
    channels, h, w = source.map.shape[1:]
    height, width = source.sizes[-1]
    mixing = 9 * channels * out_channels
    contractions = 3 * h * width * out_channels * (3 * w + height)
    return height * width * mixing, h * w * mixing, contractions


# By how much a multiply-add of the contractions costs more than one of a convolution; see docs/performance.md for how
# it was measured on a CPU. On CUDA both are matrix products and the contractions move more memory: not measured yet.
CONTRACTION_COST = {"cpu": 4.0, "cuda": 4.0}


def pays(source: Source, out_channels: int) -> bool:
    """Whether a source is better mixed before its upsampling, by multiply-adds weighted per device type."""
    if not source.sizes or source.sizes[-1] == tuple(source.map.shape[2:]):
        return False
    direct, mixing, contractions = _multiply_adds(source, out_channels)
    return mixing + CONTRACTION_COST.get(source.map.device.type, 4.0) * contractions < direct


class UpsampledConv2d(nn.Conv2d):
    """3x3 convolution with padding 1 of resized sources, concatenated in order; parameters are a Conv2d's.

    ``forward`` takes sources whose last sizes agree, with the channels given at construction, and returns
    (B, out_channels, H, W). Each source is mixed before or after its upsampling, whichever `pays`.
    """

    def __init__(self, source_channels: Sequence[int], out_channels: int, *, bias: bool = False) -> None:
        super().__init__(sum(source_channels), out_channels, 3, padding=1, bias=bias)
        self.source_channels = tuple(source_channels)
        self.frozen = False

    def freeze(self) -> None:
        """Keep the kernel packed, for inference: packing it costs a copy at each call otherwise."""
        self.frozen = True
        with torch.no_grad():
            for index, weight in enumerate(self.weight.split(self.source_channels, dim=1)):
                self.register_buffer(f"packed_{index}", pack_weight(weight).contiguous(), persistent=False)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.frozen:
            self.freeze()

    def forward(self, sources: Sequence[Source]) -> Tensor:
        weights = self.weight.split(self.source_channels, dim=1)
        before = [index for index, source in enumerate(sources) if pays(source, self.out_channels)]
        after = [index for index in range(len(sources)) if index not in before]
        if not before:
            return F.conv2d(torch.cat([resize(source) for source in sources], dim=1), self.weight, self.bias, padding=1)
        packed = [getattr(self, f"packed_{i}") if self.frozen else pack_weight(weights[i]) for i in before]
        out = mixed_before_upsampling([sources[i] for i in before], packed, self.bias)
        if after:
            maps = torch.cat([resize(sources[i]) for i in after], dim=1)
            out = out + F.conv2d(maps, torch.cat([weights[i] for i in after], dim=1), padding=1)
        return out
