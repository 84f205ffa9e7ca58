"""The one grammar of trainer names: ``<Family>Trainer[_<size>][_<option>]...[_<N>iterations][_<N>epochs]``.

Options come in the order in which the family lists them, so that a training has one name (nnU-Net names folders after
it). ``_<N>iterations`` sets the iterations of an epoch (250 otherwise) and N/5 of validation: for demonstrations,
tests and small machines.
"""

import re
from dataclasses import dataclass, replace
from functools import cache, partial

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.trainers.families import Family, Option
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from nnunetv2_levit.trainers.levit_unet import LEVIT_UNET
from nnunetv2_levit.trainers.transfuse import TRANSFUSE
from nnunetv2_levit.trainers.transunet import CATS2D, TRANSUNET, UNETR2D
from nnunetv2_levit.trainers.unet2022 import UNET2022

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LEVIT_UNET, UNET2022, TRANSFUSE, TRANSUNET, UNETR2D, CATS2D)
}
MODULE = "nnunetv2_levit.trainers"


def family_of(name: str) -> Family | None:
    """The family that a trainer's name begins with, if any."""
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
        stem = option.name.removesuffix("<N>")
        if stem != option.name and (match := re.fullmatch(rf"{stem}([1-9][0-9]*)", word)):
            return replace(option, network_options={option.parameter: int(match.group(1))})
    return None


def _parse_options(name: str, family: Family, words: list[str]) -> list[Option]:
    order = {option.name: position for position, option in enumerate(family.options)}
    chosen: list[Option] = []
    for word in words:
        option = _option(family, word)
        if option is None:
            raise UserError(
                f"{name}: {word!r} is neither a size nor an option of {family.name}Trainer; sizes are "
                f"{', '.join(family.sizes)}, options {', '.join(order)} (`nnunetv2_levit trainers` lists them)"
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
    return ParsedName(family, size, tuple(words), options, numbers.get("iterations"), numbers.get("epochs"))


def truncated_name(name: str, blocks: int) -> str:
    """Name of the same training with ``blocks`` transformer blocks (in each stage, where the network has stages)."""
    parsed = parse(name)
    number = f"blocks{blocks}"
    if _option(parsed.family, number) is None:
        raise UserError(f"{name}: {parsed.family.name} has no number of transformer blocks to choose")
    words = [word for word, option in zip(parsed.words, parsed.options, strict=True) if option.name != "blocks<N>"]
    size = parsed.size
    if parsed.family.sizes_by_blocks:
        size = parsed.family.sizes_by_blocks.get(blocks, parsed.family.default_size)
    if not parsed.family.sizes_by_blocks or blocks not in parsed.family.sizes_by_blocks:
        words.append(number)
    order = {option.name: position for position, option in enumerate(parsed.family.options)}
    words.sort(key=lambda word: order[_option(parsed.family, word).name])
    return replace(parsed, size=size, words=tuple(words)).joined()


@cache
def trainer_class(name: str) -> type[HybridTrainer]:
    """The trainer class of a name: the same object at every call, picklable by its name in this package.

    Raises:
        UserError: the name is not in the grammar; the sentence says which word is wrong.
    """
    parsed = parse(name)
    family, size = parsed.family, parsed.size
    attributes: dict = {"num_epochs_override": parsed.epochs, "num_iterations_override": parsed.iterations}
    attributes["network_name"] = family.sizes[size]
    attributes["recipe"] = family.recipe
    attributes["truncated_name"] = staticmethod(partial(truncated_name, name))
    network_options = dict(family.network_options)
    chosen = frozenset(option.name for option in parsed.options)
    for option in parsed.options:
        network_options |= option.network_options
        attributes |= option.attributes
        if option.resolve is not None:
            resolved = option.resolve(size, chosen)
            network_options |= resolved.pop("network_options", {})
            attributes |= resolved
        if option.name == "pretrained":
            attributes.setdefault("pretrained", family.pretrained_tags[size])
    attributes["network_options"] = network_options
    lines = [
        f"{family.summary}, size {size}.",
        *(f"{word}: {option.summary}." for word, option in zip(parsed.words, parsed.options, strict=True)),
    ]
    attributes |= {"__module__": MODULE, "__qualname__": name, "__doc__": "\n\n".join(lines)}
    return type(name, (family.base,), attributes)
