"""What the registry knows of a family before a network is built: names and constructors, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from nnunetv2_levit.network_architectures.base import SegmentationNetwork

MIN_SIZE, MAX_SIZE = 32, 1024  # pixels a side


@dataclass(frozen=True)
class Constructor:
    """A network's class and some of its keywords; its module (and torch) is imported when it is called.

    Attributes:
        module: of the class, by its full name.
        class_name: in that module.
        keywords: that the class gets unless the call gives others.
    """

    module: str
    class_name: str
    keywords: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **keywords: Any) -> SegmentationNetwork:
        network: SegmentationNetwork = getattr(import_module(self.module), self.class_name)(
            **{**self.keywords, **keywords}
        )
        return network


@dataclass(frozen=True)
class Family:
    """The registered networks of one paper, and which of them can stand for the others.

    Attributes:
        networks: from name to constructor.
        smallest: those that between them run all code of the family, the smallest first.
        others: how the rest differ from these: in widths, in the number of blocks, or in what they are built of.
    """

    networks: dict[str, Callable[..., SegmentationNetwork]]
    smallest: tuple[str, ...]
    others: Literal["wider", "deeper", "other parts"]

    @property
    def not_smallest(self) -> list[str]:
        """The others."""
        return [name for name in self.networks if name not in self.smallest]
