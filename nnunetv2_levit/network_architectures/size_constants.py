"""Tensors that follow from sizes alone (interpolation matrices, offsets between tokens), built once for each device."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# An index has to be a plain number: a graph compiled for sizes left open is compiled anew for these (int() would leave
# them open, and what is built of them could not be a constant).
PLAIN = tuple(range(4097))


def _build(build: Callable[..., np.ndarray], sizes: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may need later what a prediction left in the cache
        return torch.from_numpy(build(*sizes)).to(device, dtype)


_cached = lru_cache(maxsize=512)(_build)


@torch.compiler.assume_constant_result
def size_constant(build: Callable[..., np.ndarray], sizes: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``build(*sizes)`` as a tensor; ``sizes`` must be hashable and plain (see `PLAIN`).

    Not cached while a graph is traced: a fake tensor would stay behind.
    """
    return (_build if torch.compiler.is_compiling() else _cached)(build, sizes, dtype, device)
