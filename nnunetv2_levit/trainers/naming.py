"""The one grammar of trainer names: ``<Family>Trainer[_<size>][_<option>]...[_<N>iterations][_<N>epochs]``.

Options come in the order in which the family lists them, so that a training has one name (nnU-Net names folders after
it). ``_<N>iterations`` sets the iterations of an epoch (250 otherwise) and N/5 of validation: for demonstrations,
tests and small machines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.entry_points import TRAINERS, load_families
from nnunetv2_levit.trainers.families import Family, Option
from nnunetv2_levit.trainers.levit_unet import LEVIT_UNET
from nnunetv2_levit.trainers.recipe_trainer import HYBRID_RECIPE
from nnunetv2_levit.trainers.transfuse import TRANSFUSE
from nnunetv2_levit.trainers.transunet import CATS2D, TRANSUNET, UNETR2D
from nnunetv2_levit.trainers.unet2022 import UNET2022

if TYPE_CHECKING:
    from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LEVIT_UNET, UNET2022, TRANSFUSE, TRANSUNET, UNETR2D, CATS2D, HYBRID_RECIPE)
}
MODULE = "nnunetv2_levit.trainers"
ITERATIONS = 250  # of one of nnU-Net's epochs


@cache
def register_other_packages() -> None:
    """Add the families of trainers that other packages declare, once; a name that is taken stays as it is.

    Not when this module is imported, as theirs import it.
    """
    for family in load_families(TRAINERS, Family):
        FAMILIES.setdefault(family.name, family)


def family_of(name: str) -> Family | None:
    """The family that a trainer's name begins with, if any."""
    register_other_packages()
    match = re.match(r"([A-Za-z0-9]+)Trainer(_|$)", name)
    return FAMILIES.get(match.group(1)) if match else None


@dataclass(frozen=True)
class ParsedName:
    """What a trainer's name says; ``words`` are the options as written, in the order of the family's list."""

    family: Family
    size: str
    words: tuple[str, ...]
    options: tuple[Option, ...]
    iterations: int | None
    epochs: int | None

    def joined(self) -> str:
        """The name; the family's default size is left out."""
        size = [] if self.size == self.family.default_size else [self.size]
        numbers = [f"{n}{unit}" for n, unit in ((self.iterations, "iterations"), (self.epochs, "epochs")) if n]
        return "_".join([f"{self.family.name}Trainer", *size, *self.words, *numbers])


def _option(family: Family, word: str) -> Option | None:
    """The option that a word of a name stands for, its number put in."""
    for option in family.options:
        if option.name == word:
            return option
        if option.parameter is None:
            continue
        stem = option.name.removesuffix("<N>")
        if match := re.fullmatch(rf"{stem}([1-9][0-9]*)", word):
            return replace(option, network_options={option.parameter: int(match.group(1))})
    return None


def _why(family: Family, word: str) -> str:
    """What is wrong with a word that is nearly one."""
    stems = [option.name.removesuffix("<N>") for option in family.options if option.parameter is not None]
    nearly = [*(f"{stem}[0-9]+" for stem in stems), "[0-9]+(epochs|iterations)"]
    if re.fullmatch("|".join(nearly), word):
        return " (numbers begin at 1 and have no leading zeros; epochs and iterations come last, iterations first)"
    return ""


def _parse_options(name: str, family: Family, words: list[str]) -> list[Option]:
    order = {option.name: position for position, option in enumerate(family.options)}
    chosen: list[Option] = []
    for word in words:
        option = _option(family, word)
        if option is None:
            raise UserError(
                f"{name}: {word!r} is neither a size nor an option of {family.name}Trainer{_why(family, word)}; sizes "
                f"are {', '.join(family.sizes) or 'none'}, options {', '.join(order) or 'none'} "
                "(`nnunetv2_levit trainers` lists them)"
            )
        for other in chosen:
            if other.name in option.excludes or option.name in other.excludes:
                raise UserError(f"{name}: the options {other.name} and {option.name} exclude each other")
            if order[other.name] >= order[option.name]:
                raise UserError(f"{name}: options come once each and in this order: {', '.join(order)}")
        chosen.append(option)
    return chosen


def parse(name: str) -> ParsedName:
    """Take a trainer's name apart.

    Raises:
        UserError: the name is not in the grammar; the sentence says which word is wrong.
    """
    family = family_of(name)
    if family is None:
        raise UserError(f"{name} belongs to no family: names begin with {', '.join(f'{f}Trainer' for f in FAMILIES)}")
    words = name.split("_")[1:]
    numbers: dict[str, int] = {}
    for unit in ("epochs", "iterations"):
        if words and (match := re.fullmatch(rf"([1-9][0-9]*){unit}", words[-1])):
            numbers[unit] = int(match.group(1))
            words = words[:-1]
    size = family.default_size
    if words and words[0] in family.sizes:
        size, words = words[0], words[1:]
    options = tuple(_parse_options(name, family, words))
    for option in options:
        if option.parameter == "blocks" and option.network_options["blocks"] > family.blocks[size]:
            raise UserError(
                f"{name}: {family.name} of size {size} has 1 to {family.blocks[size]} transformer blocks (in each "
                f"stage, if it has stages), not {option.network_options['blocks']}"
            )
    return ParsedName(family, size, tuple(words), options, numbers.get("iterations"), numbers.get("epochs"))


def _with_blocks(parsed: ParsedName, blocks: int) -> ParsedName:
    """The same training with another number of transformer blocks: a size where one has that number, else an option."""
    family = parsed.family
    chosen = [(word, option) for word, option in zip(parsed.words, parsed.options, strict=True)]
    chosen = [(word, option) for word, option in chosen if option.parameter != "blocks"]
    size = parsed.size
    if family.sizes_by_blocks:
        size = family.sizes_by_blocks.get(blocks, family.default_size)
    if family.blocks[size] != blocks:
        word = f"blocks{blocks}"
        option = _option(family, word)
        assert option is not None  # every family that counts its blocks has this option
        chosen.append((word, option))
    order = {option.name: position for position, option in enumerate(family.options)}
    chosen.sort(key=lambda pair: order[pair[1].name])
    words = tuple(word for word, _ in chosen)
    return replace(parsed, size=size, words=words, options=tuple(option for _, option in chosen))


def truncated_name(name: str, blocks: int) -> str:
    """Name of the same training with ``blocks`` transformer blocks (in each stage, where the network has stages).

    Raises:
        UserError: the network has no blocks to choose, or not that many.
    """
    parsed = parse(name)
    if "conv" in parsed.words or not parsed.family.blocks:
        raise UserError(f"{name}: this network has no transformer blocks to choose")
    most = parsed.family.blocks[parsed.size]
    if not 1 <= blocks <= most:
        raise UserError(f"{name} has 1 to {most} transformer blocks (in each stage, if it has stages), not {blocks}")
    return _with_blocks(parsed, blocks).joined()


def _attributes(parsed: ParsedName) -> dict[str, Any]:
    """The class attributes that say what is trained and how."""
    family, size = parsed.family, parsed.size
    attributes: dict[str, Any] = {
        "recipe": family.recipe,
        "num_epochs_override": parsed.epochs,
        "num_iterations_override": parsed.iterations,
    }
    if not family.network_of_plans:
        attributes["network_name"] = family.sizes[size]
    network_options = dict(family.network_options)
    chosen = frozenset(option.name for option in parsed.options)
    for option in parsed.options:
        network_options |= option.network_options
        attributes |= option.attributes
        if option.resolve is not None:
            consequences = option.resolve(size, chosen)
            network_options |= consequences.network_options
            attributes |= consequences.attributes
        if option.name == "pretrained":
            attributes.setdefault("pretrained", family.pretrained_tags[size])
    for option in parsed.options:
        if option.recipe_changes:
            attributes["recipe"] = replace(attributes["recipe"], **option.recipe_changes)
    return {**attributes, "network_options": network_options}


def _meaning(parsed: ParsedName) -> dict[str, Any]:
    """What a training is: two names that mean the same are one training."""
    attributes = _attributes(parsed)
    defaults = {"blocks": parsed.family.blocks.get(parsed.size), **parsed.family.network_defaults}
    attributes["network_options"] = {**defaults, **attributes["network_options"]}
    attributes["num_epochs_override"] = parsed.epochs or attributes["recipe"].num_epochs
    attributes["num_iterations_override"] = parsed.iterations or ITERATIONS
    return attributes


def canonical_name(name: str) -> str:
    """The shortest name of the same training: without the default size and everything else that changes nothing.

    Raises:
        UserError: the name is not in the grammar.
    """
    parsed = parse(name)
    _attributes(parsed)  # some options say only here that they do not go together
    for option in parsed.options:
        if option.parameter == "blocks":
            parsed = _with_blocks(parsed, option.network_options["blocks"])
    meaning = _meaning(parsed)
    shorter = [
        *(
            replace(
                parsed,
                words=parsed.words[:index] + parsed.words[index + 1 :],
                options=parsed.options[:index] + parsed.options[index + 1 :],
            )
            for index in range(len(parsed.words))
        ),
        replace(parsed, epochs=None),
        replace(parsed, iterations=None),
    ]
    for candidate in shorter:
        if candidate != parsed and _meaning(candidate) == meaning:
            return canonical_name(candidate.joined())
    return parsed.joined()


def check_canonical(name: str) -> None:
    """Raise a UserError where a training has a shorter name, as nnU-Net names its folder after the trainer."""
    canonical = canonical_name(name)
    if canonical != name:
        raise UserError(
            f"{name} is the training {canonical} by a second name: use {canonical} (to go on with a training that was "
            f"begun as {name}, rename its folder)"
        )


@cache
def trainer_class(name: str) -> type[HybridTrainer]:
    """The trainer class of a name: the same object at every call, picklable by its name in this package.

    A second name of a training gives a class too, by which models that were trained under it are predicted; it can't
    be trained any more.

    Raises:
        UserError: the name is not in the grammar; the sentence says which word is wrong.
    """
    # here, as names are listed without torch
    from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
    from nnunetv2_levit.trainers.plans_network import PlansNetworkTrainer

    parsed = parse(name)
    attributes = _attributes(parsed)
    size = f", size {parsed.size}" if parsed.size else ""
    lines = [
        f"{parsed.family.summary}{size}.",
        *(f"{word}: {option.summary}." for word, option in zip(parsed.words, parsed.options, strict=True)),
    ]
    attributes |= {
        "truncated_name": staticmethod(partial(truncated_name, name)),
        "check_name": staticmethod(partial(check_canonical, name)),
        "__module__": MODULE,
        "__qualname__": name,
        "__doc__": "\n\n".join(lines),
    }
    base = PlansNetworkTrainer if parsed.family.network_of_plans else HybridTrainer
    return type(name, (base,), attributes)
