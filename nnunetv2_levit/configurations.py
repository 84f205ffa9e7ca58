"""Further configurations in a plans file: another patch size on the same preprocessed data."""

from pathlib import Path

import numpy as np

from nnunetv2_levit import schemas
from nnunetv2_levit.environment import dataset_folder
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.network_architectures import MAX_SIZE, MIN_SIZE


def _plans_file(dataset_id: int, plans_name: str) -> Path:
    advice = f"run `nnUNetv2_plan_and_preprocess -d {dataset_id}` first"
    path = dataset_folder("nnUNet_preprocessed", dataset_id, advice=advice) / f"{plans_name}.json"
    if not path.is_file():
        raise UserError(f"there is no plans file {path}: {advice}")
    return path


def _resolved(configurations: dict[str, dict], name: str) -> dict:
    configuration = configurations[name]
    parent = configuration.get("inherits_from")
    return {**_resolved(configurations, parent), **configuration} if parent in configurations else dict(configuration)


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
        UserError: no such dataset, plans or configuration, a 3D one, an unusable size, or a name already taken.
    """
    path = _plans_file(dataset_id, plans_name)
    plans = read_json(path, what="a plans file", schema=schemas.PLANS_TO_CONFIGURE)
    schemas.check_inheritance(plans, path=path)
    configurations = plans["configurations"]
    if base not in configurations:
        raise UserError(f"{path} has no configuration {base!r}: choose one of {', '.join(configurations)}")
    parent = _resolved(configurations, base)
    if "patch_size" not in parent:
        raise UserError(f"{path}: configurations/{base} lacks 'patch_size': {schemas.PLANS['remedy']}")
    if len(parent["patch_size"]) != 2:
        raise UserError(f"the configuration {base} is not 2D: give one with a 2D patch, such as 2d")
    if not all(MIN_SIZE <= side <= MAX_SIZE for side in patch_size):
        raise UserError(
            f"the patch size {patch_size[0]}x{patch_size[1]} is outside {MIN_SIZE} to {MAX_SIZE} a side: choose another"
        )
    if batch_size is not None and batch_size < 2:
        raise UserError(f"the batch size {batch_size} is below 2, which batch normalisation needs: choose a larger one")
    name = name or f"{base}_p{patch_size[0]}x{patch_size[1]}"
    if "__" in name:
        raise UserError(
            f"the configuration name {name!r} contains '__', at which nnU-Net splits folder names: rename it"
        )
    entry: dict = {"inherits_from": base, "patch_size": list(patch_size)}
    if batch_size is not None:
        entry["batch_size"] = batch_size
    if name in configurations and configurations[name] != entry and not overwrite:
        raise UserError(f"{path} has another configuration {name} already: add --name NAME or --overwrite")
    configurations[name] = entry
    write_json(path, plans, indent=4, allow_nan=True)  # which nnU-Net writes too

    strides = parent.get("architecture", {}).get("arch_kwargs", {}).get("strides")
    remark = None
    if strides is not None and all(len(stride) == len(patch_size) for stride in strides):
        factors = np.prod(np.array(strides), axis=0)
        if any(side % factor for side, factor in zip(patch_size, factors, strict=True)):
            remark = (
                f"nnU-Net's own U-Net of this plan needs multiples of {factors[0]}x{factors[1]} and can't be trained "
                f"on {name}; the trainers of nnunetv2_levit can"
            )
    return name, path, remark
