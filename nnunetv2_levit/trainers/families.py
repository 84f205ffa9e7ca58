"""What trainers exist, as data: families, their sizes and options. `naming.py` turns a name into a class."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_levit.trainers.recipe import Recipe


@dataclass(frozen=True)
class Consequences:
    """What the choice of an option brings with it, beside what the option always sets."""

    network_options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """One option of a family: what it adds to the network's keywords and which class attributes it sets.

    A name that ends in ``<N>`` stands for any positive number there, which becomes the network's keyword ``parameter``.

    ``resolve``, where given, computes what else is set from the size and the names of all options chosen.
    """

    name: str
    summary: str
    network_options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    excludes: tuple[str, ...] = ()
    parameter: str | None = None
    resolve: Callable[[str, frozenset[str]], Consequences] | None = None


@dataclass(frozen=True)
class Family:
    """Trainers that share a network and a recipe.

    Attributes:
        sizes: from the size in a trainer's name to the network's name in the registry.
        network_options: keywords of the network that hold unless an option says otherwise.
        pretrained_tags: from the size to the weights that the option ``pretrained`` asks for.
        sizes_by_blocks: from a number of transformer blocks to the size that has it, where sizes differ by that alone.
        blocks: from the size to its number of transformer blocks (the largest of its stages, if it has stages).
        network_defaults: what the network takes where no option says otherwise, of keywords that options set.
        network_of_plans: the network is the one that the plans name, so there are no sizes.
    """

    name: str
    summary: str
    sizes: dict[str, str]
    default_size: str
    recipe: Recipe
    options: tuple[Option, ...]
    network_options: dict[str, Any] = field(default_factory=dict)
    pretrained_tags: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    sizes_by_blocks: dict[int, str] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    network_defaults: dict[str, Any] = field(default_factory=dict)
    network_of_plans: bool = False


BLOCKS_PER_STAGE = Option(
    "blocks<N>", "at most N transformer blocks in each stage (`nnunetv2_levit truncate` makes them)", parameter="blocks"
)
