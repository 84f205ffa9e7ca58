"""What trainers exist, as data: families, their sizes and options. `naming.py` turns a name into a class."""

from dataclasses import dataclass, field
from typing import Any

from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from nnunetv2_levit.trainers.recipe import Recipe


@dataclass(frozen=True)
class Option:
    """One option of a family: what it adds to the network's keywords and which class attributes it sets."""

    name: str
    summary: str
    network_options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Trainers that share a network and a recipe.

    Attributes:
        sizes: from the size in a trainer's name to the network's name in the registry.
        pretrained_tags: from the size to the weights that the option ``pretrained`` asks for.
    """

    name: str
    summary: str
    sizes: dict[str, str]
    default_size: str
    recipe: Recipe
    options: tuple[Option, ...]
    pretrained_tags: dict[str, str] = field(default_factory=dict)
    base: type[HybridTrainer] = HybridTrainer
