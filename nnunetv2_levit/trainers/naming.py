"""The one grammar of trainer names: ``<Family>Trainer[_<size>][_<option>]...[_<N>iterations][_<N>epochs]``.

Options come in the order in which the family lists them, so that a training has one name (nnU-Net names folders after
it). ``_<N>iterations`` sets the iterations of an epoch (250 otherwise) and N/5 of validation: for demonstrations,
tests and small machines.
"""

import re
from functools import cache

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.trainers.families import Family, Option
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from nnunetv2_levit.trainers.levit_unet import LEVIT_UNET
from nnunetv2_levit.trainers.unet2022 import UNET2022

FAMILIES: dict[str, Family] = {family.name: family for family in (LEVIT_UNET, UNET2022)}
MODULE = "nnunetv2_levit.trainers"


def family_of(name: str) -> Family | None:
    """The family that a trainer's name begins with, if any."""
    match = re.match(r"([A-Za-z0-9]+)Trainer(_|$)", name)
    return FAMILIES.get(match.group(1)) if match else None


def _parse_options(name: str, family: Family, words: list[str]) -> list[Option]:
    known = {option.name: position for position, option in enumerate(family.options)}
    chosen: list[Option] = []
    for word in words:
        if word not in known:
            raise UserError(
                f"{name}: {word!r} is neither a size nor an option of {family.name}Trainer; sizes are "
                f"{', '.join(family.sizes)}, options {', '.join(known)} (`nnunetv2_levit trainers` lists them)"
            )
        option = family.options[known[word]]
        for other in chosen:
            if other.name in option.excludes or option.name in other.excludes:
                raise UserError(f"{name}: the options {other.name} and {option.name} exclude each other")
            if known[other.name] >= known[word]:
                raise UserError(f"{name}: options come once each and in this order: {', '.join(known)}")
        chosen.append(option)
    return chosen


@cache
def trainer_class(name: str) -> type[HybridTrainer]:
    """The trainer class of a name: the same object at every call, picklable by its name in this package.

    Raises:
        UserError: the name is not in the grammar; the sentence says which word is wrong.
    """
    family = family_of(name)
    if family is None:
        raise UserError(f"{name} belongs to no family: names begin with {', '.join(f'{f}Trainer' for f in FAMILIES)}")
    words = name.split("_")[1:]
    attributes: dict = {"num_epochs_override": None, "num_iterations_override": None}
    for unit in ("epochs", "iterations"):
        if words and (match := re.fullmatch(rf"([1-9][0-9]*){unit}", words[-1])):
            attributes[f"num_{unit}_override"] = int(match.group(1))
            words = words[:-1]
    size = family.default_size
    if words and words[0] in family.sizes:
        size, words = words[0], words[1:]
    options = _parse_options(name, family, words)

    attributes["network_name"] = family.sizes[size]
    attributes["recipe"] = family.recipe
    network_options = dict(family.network_options)
    chosen = frozenset(option.name for option in options)
    for option in options:
        network_options |= option.network_options
        attributes |= option.attributes
        if option.resolve is not None:
            resolved = option.resolve(size, chosen)
            network_options |= resolved.pop("network_options", {})
            attributes |= resolved
        if option.name == "pretrained":
            attributes["pretrained"] = family.pretrained_tags[size]
    attributes["network_options"] = network_options
    lines = [f"{family.summary}, size {size}.", *(f"{option.name}: {option.summary}." for option in options)]
    attributes |= {"__module__": MODULE, "__qualname__": name, "__doc__": "\n\n".join(lines)}
    return type(name, (family.base,), attributes)
