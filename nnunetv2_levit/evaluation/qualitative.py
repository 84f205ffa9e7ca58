"""The worst, median and best case for a figure: image, ground truth, each model, and where each is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.label_files import Pair, read_pair
from nnunetv2_levit.figures import CaseOfModel, CaseRow
from nnunetv2_levit.image_files import read_images
from nnunetv2_levit.nnunet.dataset_description import reader_of

MARGIN = 0.35  # of the labelled box, around it


def prediction_path(evaluation: dict[str, Any], entry: dict[str, Any]) -> Path:
    """Where the prediction of a case lies, from an evaluation of a folder or a trained-model folder."""
    folder = Path(evaluation["predictions"])
    if entry["fold"]:
        folder = folder / entry["fold"] / "validation"
    return folder / f"{entry['case']}{evaluation['file_ending']}"


def _entry(evaluation: dict[str, Any], case: str) -> dict[str, Any]:
    for entry in evaluation["cases"]:
        if entry["case"] == case:
            return entry
    raise UserError(f"{evaluation['name']} was not evaluated on {case}: evaluate all models on the same cases")


def _case_mean(entry: dict[str, Any]) -> float | None:
    values = [metrics["dice"] for metrics in entry["metrics"].values()]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def chosen_cases(evaluation: dict[str, Any]) -> dict[str, str]:
    """The worst, median and best case by the mean DSC over structures (those with a value)."""
    means = {entry["case"]: _case_mean(entry) for entry in evaluation["cases"]}
    scores = {case: mean for case, mean in means.items() if mean is not None}
    if not scores:
        raise UserError(f"{evaluation['name']} has no case with a structure: there is nothing to show")
    order = sorted(scores, key=lambda case: (scores[case], case))
    return {"worst": order[0], "median": order[(len(order) - 1) // 2], "best": order[-1]}


def _slice(array: np.ndarray, index: int) -> np.ndarray:
    return array if array.ndim == 2 else array[index]


def _window(masks: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """A box around all labels with a margin; everything where there are none."""
    present = np.any([mask > 0 for mask in masks], axis=0)
    if not present.any():
        return slice(None), slice(None)
    box = []
    for axis in range(2):
        where = np.flatnonzero(present.any(axis=1 - axis))
        margin = max(8, round(MARGIN * (where[-1] - where[0] + 1)))
        box.append(slice(max(0, where[0] - margin), where[-1] + margin + 1))
    return box[0], box[1]


def error_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """0 where right, 1 missed, 2 spurious, 3 another structure (the order of `figures.ERROR_COLOURS`)."""
    wrong = prediction != truth
    return np.select([wrong & (prediction == 0), wrong & (truth == 0), wrong], [1, 2, 3], 0)


def label_names(evaluation: dict[str, Any]) -> dict[int, str]:
    """The structure that each label belongs to; of regions, all of them."""
    names: dict[int, list[str]] = {}
    for structure, values in evaluation["structures"].items():
        for value in values:
            names.setdefault(value, []).append(structure)
    return {value: " + ".join(structures) for value, structures in names.items()}


def case_rows(evaluations: Sequence[dict[str, Any]], images: Path) -> list[CaseRow]:
    """A row for the worst, median and best case of the first evaluation, with each evaluation's prediction.

    Args:
        images: folder of the images in nnU-Net's naming (CASE_0000…); the first channel is shown.

    Raises:
        UserError: an image or a prediction is missing, or a model was not evaluated on a chosen case.
    """
    reader = reader_of({"file_ending": evaluations[0]["file_ending"]})()
    chosen = chosen_cases(evaluations[0])
    return [_row(rank, case, evaluations, images=images, reader=reader) for rank, case in chosen.items()]


def _row(rank: str, case: str, evaluations: Sequence[dict[str, Any]], *, images: Path, reader: Any) -> CaseRow:
    ending = evaluations[0]["file_ending"]
    image_file = images / f"{case}_0000{ending}"
    if not image_file.is_file():
        raise UserError(f"{image_file} is missing: give the folder of the evaluated images with --images")
    image = read_images([image_file], reader)[0][0]
    entries = [_entry(evaluation, case) for evaluation in evaluations]
    pairs = [
        read_pair(
            Pair(case, prediction_path(evaluation, entry), Path(evaluation["ground_truth"]) / f"{case}{ending}"),
            reader,
            structures=evaluation["structures"],
            ignored=evaluation["ignore_label"],
        )
        for evaluation, entry in zip(evaluations, entries, strict=True)
    ]
    truth, spacing = pairs[0].truth, pairs[0].spacing
    if truth.ndim == 2 and image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.shape != truth.shape:
        raise UserError(f"{image_file} and its labels differ in shape: give the images that were predicted")
    index, place = 0, "one slice"
    if truth.ndim == 3:
        shown, what = truth > 0, "largest structures"
        if rank == "worst":
            shown, what = pairs[0].prediction != truth, "most errors"
        index = int(shown.sum(axis=(1, 2)).argmax())
        place = f"slice {index + 1} of {len(truth)}, {what}"
    truth, image = _slice(truth, index), _slice(image, index)
    predictions = [_slice(pair.prediction, index) for pair in pairs]
    window = _window([truth, *predictions])
    return CaseRow(
        rank=rank,
        case=case,
        place=place,
        image=image[window],
        truth=truth[window],
        aspect=spacing[-2] / spacing[-1],
        models=[
            CaseOfModel(
                name=evaluation["name"],
                prediction=prediction[window],
                errors=error_map(prediction, truth)[window],
                dice=_case_mean(entry),
            )
            for evaluation, entry, prediction in zip(evaluations, entries, predictions, strict=True)
        ],
    )
