"""What trainers exist, as data: families, their sizes and options. `naming.py` turns a name into a class."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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

    ``recipe_changes`` are fields of the recipe that it replaces, be it the family's or that of another option.

    ``resolve``, where given, computes what else is set from the size and the names of all options chosen.
    """

    name: str
    summary: str
    network_options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    recipe_changes: dict[str, Any] = field(default_factory=dict)
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


def unet_levels(where: str) -> Option:
    """The option ``unetlevels`` of a network with a vision transformer; ``where`` says what the levels replace."""
    return Option(
        "unetlevels", f"nnU-Net's levels {where} (not in the papers)", {"unet_levels": True}, excludes=("pretrained",)
    )


AVERAGED_SHARE = 0.02
PRIMUS_RECIPE = {
    "learning_rate": 3e-4,
    "betas": (0.9, 0.98),
    "weight_decay": 0.05,
    "warmup": 0.05,
    "gradient_clip": 1.0,
}
"""Of nnU-Net's own transformers (Primus, Wald et al. 2025), beside drop path and layer scale."""

RECIPE_OPTIONS = (
    Option(
        "primus",
        "the recipe of nnU-Net's Primus: AdamW 3e-4, betas 0.9 and 0.98, decay 0.05, warm-up 5 %",
        recipe_changes=PRIMUS_RECIPE,
        excludes=("paper", "study"),
    ),
    Option(
        "agc",
        "gradients also clipped unit by unit, to 1 % of the weights' norm (AGC), as LeViT's authors do",
        recipe_changes={"adaptive_clip": 0.01},
    ),
    Option(
        "ema",
        "a moving average of the weights, over 2 % of the training, is evaluated and saved",
        recipe_changes={"weight_average": AVERAGED_SHARE},
    ),
    Option(
        "nomirror",
        "neither patches nor, at prediction, images are mirrored",
        recipe_changes={"mirroring": False},
        excludes=("paper", "study"),
    ),
    Option("bf16", "training steps in bfloat16, on CPUs too", recipe_changes={"bf16": True}),
)
"""Options of every family, which change its recipe. They come before ``pretrained`` and ``paper`` in a name."""

_PRIMUS, *_OTHERS = RECIPE_OPTIONS
VIT_RECIPE_OPTIONS = (
    replace(
        _PRIMUS,
        summary=f"{_PRIMUS.summary}, drop path 0.2, layer scale 0.1",
        network_options={"drop_path": 0.2, "layer_scale": 0.1},
    ),
    *_OTHERS,
)
"""The same for networks with a vision transformer of timm's blocks."""
