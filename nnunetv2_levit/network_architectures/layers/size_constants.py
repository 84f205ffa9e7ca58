"""Tensors that follow from sizes alone (interpolation matrices, offsets between tokens), built once for each device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST_SIDE = 4096
_NUMBERS = tuple(range(LARGEST_SIDE + 1))
MOST_KEPT = 512
_kept: dict[tuple[Any, ...], Tensor] = {}


def plain_number(side: int) -> int:
    """A height or width as a plain number, also while a graph is traced for sizes left open.

    Tracing hands out placeholders for such sizes, from which no constant can be built, and ``int()`` leaves them as
    they are. An index, however, has to be a number: the graph is then compiled anew for another one.
    """
    return _NUMBERS[side]


def _build(
    build: Callable[..., np.ndarray], sizes: tuple[Any, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # training may need later what a prediction left in the cache
        constant = torch.from_numpy(build(*sizes)).to(device, dtype)
    # torch.compile names constants after the function alone, and takes sizes that differ under one name for open ones:
    # torch 2.14 then ends with an IndexError. What `torch._dynamo.mark_static` notes is noted here, as that is without
    # effect in a function whose result is assumed to be constant.
    constant._dynamo_static_indices = set(range(constant.dim()))  # type: ignore[attr-defined]
    return constant


@torch.compiler.assume_constant_result
def size_constant(
    build: Callable[..., np.ndarray], sizes: tuple[Any, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """``build(*sizes)`` as a tensor; ``sizes`` must be hashable, of numbers as `plain_number` gives them.

    Not kept while a graph is traced or shapes alone are computed: a fake tensor would stay behind.
    """
    if torch.compiler.is_compiling():
        return _build(build, sizes, dtype, device)
    key = (build, sizes, dtype, device)
    constant = _kept.get(key)
    if constant is None:
        constant = _build(build, sizes, dtype, device)
        if type(constant) is Tensor:
            if len(_kept) >= MOST_KEPT:
                _kept.clear()
            _kept[key] = constant
    return constant
