"""Whether the plans.json and dataset.json of a model folder are those that its checkpoints were trained with.

nnU-Net predicts with the two files and never looks at the copies in the checkpoint. A training of one fold writes both
anew for all folds, and a file may be edited: weights that fit a changed plan (another spacing, normalisation or patch
size) give another segmentation without a word. So a difference in what decides a segmentation is refused. It is no mere
note, as nobody reads notes of a job on a cluster; who changed a plan on purpose has nnUNetv2_predict.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.json_checks import shown
from nnunetv2_levit.nnunet.configurations import resolved_configuration

# batch size, name of the preprocessed folder, median shape and the like decide nothing once a model is trained
DECIDING_OF_PLANS = (
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "foreground_intensity_properties_per_channel",
    "label_manager",
)
_RESAMPLED = ("data", "seg", "probabilities")
DECIDING_OF_CONFIGURATION = (
    "spacing",
    "patch_size",
    "normalization_schemes",
    "use_mask_for_norm",
    "preprocessor_name",
    "previous_stage",
    "architecture",
    *(f"resampling_fn_{kind}" for kind in _RESAMPLED),
    *(f"resampling_fn_{kind}_kwargs" for kind in _RESAMPLED),
)
DECIDING_OF_DATASET = ("labels", "regions_class_order")


def _deciding(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str, path: Path
) -> dict[str, dict[str, Any]]:
    """By file and place, what decides a segmentation; None where it is not there."""
    resolved, _ = resolved_configuration(plans["configurations"], configuration, path)
    channels = dataset.get("channel_names", dataset.get("modality", {}))
    return {
        "plans.json": {name: plans.get(name) for name in DECIDING_OF_PLANS}
        | {f"configurations/{configuration}/{name}": resolved.get(name) for name in DECIDING_OF_CONFIGURATION},
        "dataset.json": {name: dataset.get(name) for name in DECIDING_OF_DATASET}
        | {"the number of channels": len(channels)},
    }


def _same(ours: Any, theirs: Any) -> bool:
    """Equal as JSON (a tuple is a list, 1 is 1.0, NaN is NaN), whatever the order of an object's names."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {str(name) for name in ours} == {str(name) for name in theirs} and all(
            _same(value, theirs.get(name, theirs.get(str(name)))) for name, value in ours.items()
        )
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    return ours == theirs or (ours != ours and theirs != theirs)


def check_plans_of_training(
    init_args: Mapping[str, Any], *, plans: Mapping[str, Any], dataset: Mapping[str, Any], folder: Path, checkpoint: str
) -> None:
    """Check a model folder's plans and dataset description against those in a checkpoint.

    Args:
        init_args: the checkpoint's; without plans of the present format there is nothing to compare.
        folder: of the model, for the sentence.
        checkpoint: its name within the folder, for the sentence.

    Raises:
        UserError: naming the file, the place, both values, and the checkpoint.
    """
    configuration = init_args["configuration"]
    if configuration not in plans["configurations"]:
        raise UserError(
            f"{folder / 'plans.json'} has no configuration {configuration!r}, with which {checkpoint} was trained: "
            "restore the file"
        )
    try:
        trained = _deciding(init_args["plans"], init_args["dataset_json"], configuration, folder / checkpoint)
    except (KeyError, TypeError, AttributeError, UserError):  # a checkpoint of another version or program
        return
    for file, places in _deciding(plans, dataset, configuration, folder / "plans.json").items():
        for place, value in places.items():
            before = trained[file][place]
            # plans of nnU-Net before 2.4 described the network otherwise, and may have been rewritten since
            if place.endswith("/architecture") and before is None:
                continue
            if not _same(value, before):
                raise UserError(
                    f"{folder / file}: {place} is {_short(value)}, but {checkpoint} was trained with {_short(before)}: "
                    "restore the file, or predict folds of other plans from a folder of their own"
                )


def _short(value: Any) -> str:
    return shown(json.loads(json.dumps(value, default=str)))
