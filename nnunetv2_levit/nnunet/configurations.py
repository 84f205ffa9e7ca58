"""Further configurations in a plans file: another patch size on the same preprocessed data."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_levit import json_checks, schemas
from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.network_architectures import MAX_SIZE, MIN_SIZE
from nnunetv2_levit.nnunet.environment import dataset_folder

NNUNET_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
ADDED_KEYS = {"inherits_from", "patch_size", "batch_size", "architecture"}
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
# a folder's name has 255 bytes, which trainer, plans and configuration share
MAX_NAME_LENGTH = 100
MIN_BATCH_SIZE = 2
# 4096 of the smallest patches have as many pixels as 64 of 256x256, and papers use 2 to 64: more is a slip of the key
MAX_BATCH_SIZE = 4096


def plans_file(dataset_id: int, plans_name: str) -> Path:
    _check_name(plans_name, "plans identifier")
    advice = f"run `nnUNetv2_plan_and_preprocess -d {dataset_id}` first"
    path = dataset_folder("nnUNet_preprocessed", dataset_id, advice=advice) / f"{plans_name}.json"
    if not path.is_file():
        raise UserError(f"there is no plans file {path}: {advice}")
    return path


def resolved_configuration(configurations: dict[str, dict], name: str, path: Path) -> tuple[dict, list[str]]:
    """A configuration with what it inherits, and the names that it goes back to, itself first.

    Raises:
        UserError: a parent that does not exist, or one that inherits from its own child.
    """
    lineage: list[str] = []
    resolved: dict = {}
    parent: str | None = name
    while parent is not None:
        if parent in lineage:
            circle = " -> ".join([*lineage[lineage.index(parent) :], parent])
            raise UserError(
                f"{path}: configurations inherit in a circle ({circle}): remove inherits_from from one of them, or "
                "plan the dataset anew"
            )
        if parent not in configurations:
            raise UserError(
                f"{path}: the configuration {lineage[-1]} inherits from {parent!r}, which is not there: choose one of "
                f"{', '.join(configurations)}, or plan the dataset anew"
            )
        lineage.append(parent)
        resolved = {**configurations[parent], **resolved}
        parent = configurations[parent].get("inherits_from")
    return resolved, lineage


def _check_name(name: str, what: str) -> None:
    """Refuse a name that can't be part of nnU-Net's folder names, ``TRAINER__PLANS__CONFIGURATION``."""
    if "__" in name:
        raise UserError(f"the {what} {name!r} contains '__', at which nnU-Net splits folder names: rename it")
    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(
            f"the {what} {name!r} can't be part of a folder's name: use letters a to z, digits, and '_', '-' or '.' "
            "between them"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise UserError(f"the {what} {name[:20]}… has {len(name)} characters: use {MAX_NAME_LENGTH} at most")


def _is_added(name: str, configuration: dict) -> bool:
    """Whether `configure` made a configuration of a plans file.

    It inherits, and holds nothing but another patch or network and perhaps a batch size, whereas nnU-Net's own do not
    inherit an architecture or have a previous stage, and a person's may hold anything.
    """
    keys = set(configuration)
    return (
        name not in NNUNET_CONFIGURATIONS
        and "inherits_from" in keys
        and keys <= ADDED_KEYS
        and bool(keys & {"patch_size", "architecture"})
    )


def _whole_numbers(values: object, count: int) -> bool:
    """Whether these are ``count`` whole numbers above zero."""
    return (
        isinstance(values, Sequence | np.ndarray)
        and len(values) == count
        and all(isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0 for value in values)
    )


def check_sizes(patch_size: Sequence[int], batch_size: int | None) -> None:
    """Refuse a patch that the networks don't take, or a batch that can't be meant."""
    if not _whole_numbers(patch_size, 2) or not all(MIN_SIZE <= side <= MAX_SIZE for side in patch_size):
        shown = "x".join(map(str, patch_size))
        raise UserError(
            f"the patch size {shown} is not two whole numbers from {MIN_SIZE} to {MAX_SIZE}: choose another"
        )
    if batch_size is None:
        return
    if not _whole_numbers([batch_size], 1) or batch_size < MIN_BATCH_SIZE:
        raise UserError(
            f"the batch size {batch_size} is no whole number, or below {MIN_BATCH_SIZE}, which batch normalisation "
            "needs: choose a larger one"
        )
    if batch_size > MAX_BATCH_SIZE:
        raise UserError(f"the batch size {batch_size} is above {MAX_BATCH_SIZE}: choose a smaller one")


def resolved_base(path: Path, plans: dict, *, base: str, batch_size: int | None) -> dict:
    """The configuration ``base`` of a plans file, with what it inherits.

    Raises:
        UserError: there is none, it is not 2D, or it lacks what nnU-Net needs of it.
    """
    configurations = plans["configurations"]
    if base not in configurations:
        raise UserError(f"{path} has no configuration {base!r}: choose one of {', '.join(configurations)}")
    parent, _ = resolved_configuration(configurations, base, path)
    size = parent.get("patch_size")
    if _whole_numbers(size, 3):
        raise UserError(f"the configuration {base} is not 2D: give one with a 2D patch, such as 2d")
    if not _whole_numbers(size, 2):
        found = "no patch_size" if size is None else f"the patch_size {size}, which are not two whole numbers above 0"
        raise UserError(f"{path}: the configuration {base} has {found}: plan the dataset anew, or choose another base")
    if batch_size is None and not _whole_numbers([parent.get("batch_size")], 1):
        found = "no batch_size" if "batch_size" not in parent else f"the batch_size {parent['batch_size']!r}"
        raise UserError(f"{path}: the configuration {base} has {found} to inherit: add --batch")
    return parent


def _unet_factors(parent: dict, path: Path) -> list[int] | None:
    """By what nnU-Net's own U-Net of a 2D configuration divides rows and columns; None where the plans don't say."""
    strides = parent.get("architecture", {}).get("arch_kwargs", {}).get("strides")
    if strides is None:
        return None
    # a stage's stride may be one number for both axes
    pairs = [[stride, stride] if isinstance(stride, int) else stride for stride in strides]
    if not pairs or not all(_whole_numbers(pair, 2) for pair in pairs):
        raise UserError(f"{path}: the strides {strides} are not pairs of whole numbers above 0: plan the dataset anew")
    return [math.prod(axis) for axis in zip(*pairs, strict=True)]


def read_plans(path: Path) -> dict:
    """The content of a plans file.

    Raises:
        UserError: it is no plans file, or its configurations inherit in a circle.
    """
    plans = read_json(path, what="a plans file", schema=schemas.PLANS_TO_CONFIGURE)
    json_checks.check_inheritance(plans, path=path)
    return plans


def names_the_adapter(dataset_id: int, base: str, plans_name: str) -> bool:
    """Whether a configuration's network is one of another package within the adapter, made for a patch size.

    False where there is no such configuration.

    Raises:
        UserError: no such dataset or plans.
    """
    path = plans_file(dataset_id, plans_name)
    configurations = read_plans(path)["configurations"]
    if base not in configurations:
        return False
    resolved, _ = resolved_configuration(configurations, base, path)
    return (resolved.get("architecture") or {}).get("network_class_name") == ADAPTER


def write_configuration(path: Path, plans: dict, *, name: str, base: str, entry: dict, overwrite: bool) -> None:
    """Add a configuration that inherits from ``base`` to a plans file.

    Raises:
        UserError: an impossible name, or one that is taken.
    """
    configurations = plans["configurations"]
    _check_name(name, "configuration name")
    _, lineage = resolved_configuration(configurations, base, path)
    if name in NNUNET_CONFIGURATIONS or (name in configurations and not _is_added(name, configurations[name])):
        raise UserError(
            f"{name} is a configuration of nnU-Net's or of your own, not one added here: give another --name"
        )
    if name in lineage:
        raise UserError(
            f"the configuration {name} would inherit from itself ({' -> '.join(lineage)}): give another --name"
        )
    if name in configurations and configurations[name] != entry and not overwrite:
        raise UserError(f"{path} has another configuration {name} already: add --name NAME or --overwrite")
    configurations[name] = entry
    write_json(path, plans, indent=4, allow_nan=True)  # which nnU-Net writes too


def add_configuration(
    *,
    dataset_id: int,
    base: str,
    patch_size: tuple[int, int],
    batch_size: int | None = None,
    name: str | None = None,
    plans_name: str = "nnUNetPlans",
    overwrite: bool = False,
) -> tuple[str, Path, str | None]:
    """Add a configuration that inherits from the 2D configuration ``base`` with another patch (pixels) and batch size.

    Preprocessed data are reused. Returns the configuration's name, the plans file, and a remark if nnU-Net's own U-Net
    can't be trained on that patch.

    Raises:
        UserError: no such dataset, plans or configuration, a 3D or unfinished one, an unusable size or name, or a name
            already taken; nnU-Net's own configurations are never replaced.
    """
    check_sizes(patch_size, batch_size)
    path = plans_file(dataset_id, plans_name)
    plans = read_plans(path)
    parent = resolved_base(path, plans, base=base, batch_size=batch_size)
    name = f"{base}_p{patch_size[0]}x{patch_size[1]}" if name is None else name
    entry: dict = {"inherits_from": base, "patch_size": [int(side) for side in patch_size]}
    if batch_size is not None:
        entry["batch_size"] = int(batch_size)
    factors = _unet_factors(parent, path)
    write_configuration(path, plans, name=name, base=base, entry=entry, overwrite=overwrite)
    remark = None
    if factors is not None and any(side % factor for side, factor in zip(patch_size, factors, strict=True)):
        remark = (
            f"nnU-Net's own U-Net of this plan needs multiples of {factors[0]}x{factors[1]} and can't be trained "
            f"on {name}; the trainers of nnunetv2_levit can"
        )
    return name, path, remark
