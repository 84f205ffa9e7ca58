"""What a network returns, computed on shapes alone: torch's fake tensors have a size and a type, and no numbers."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from nnunetv2_levit.network_architectures.layers.grids import Grid

Key = int | str | None
"""Which output: None where the network returns one tensor, else an index or a key."""
NEEDS_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)
LARGEST_WITH_NUMBERS = 256
"""Sides of images up to which a network is run where shapes alone don't do."""


@contextmanager
def quiet() -> Iterator[None]:
    """torch logs the traceback of every operator that fails on shapes."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def outputs_of(result: Any) -> dict[Key, Tensor]:
    """The tensors that a network returned, by what names them."""
    if isinstance(result, Tensor):
        return {None: result}
    if isinstance(result, Mapping):
        items: Any = result.items()
    else:
        items = enumerate(result) if isinstance(result, list | tuple) else ()
    return {key: value for key, value in items if isinstance(value, Tensor)}


def output_shapes(
    network: nn.Module, shape: tuple[int, int, int, int], *, train: bool = True
) -> dict[Key, tuple[int, ...]]:
    """Shapes of a network's outputs for images of ``shape`` (B, C, H, W), without computing a number where possible.

    Raises:
        Exception: what the network raises.
    """
    network.train(train)
    try:
        with quiet(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            result = network(torch.empty(shape))
            return {key: tuple(value.shape) for key, value in outputs_of(result).items()}
    except NEEDS_NUMBERS:
        if max(shape[2:]) > LARGEST_WITH_NUMBERS:
            raise
        with torch.no_grad():
            return {key: tuple(value.shape) for key, value in outputs_of(network(torch.zeros(shape))).items()}


class NetworkOfAnySize:
    """Builds a network for an image size, once where the size is no argument of it.

    Args:
        build: from (height, width) to the network.
        takes_image_size: build anew for each size.
        squares_only: it can be built for squares alone.
    """

    def __init__(
        self, build: Callable[[Grid], nn.Module], *, takes_image_size: bool, squares_only: bool = False
    ) -> None:
        self._build, self._takes_image_size, self.squares_only = build, takes_image_size, squares_only
        self._kept: tuple[Grid, nn.Module] | None = None

    def __call__(self, size: Grid) -> nn.Module:
        if self._kept is None or (self._takes_image_size and self._kept[0] != size):
            self._kept = (size, self._build(size))
        return self._kept[1]
