"""Which prediction belongs to which ground truth, whose it is, which structures there are, and reading the pairs."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.image_files import differing_geometry, read_label_file

PICTURE_SPACING = 999  # nnU-Net's stand-in for the spacing along the axis that a picture lacks
PICTURES = (".png", ".bmp", ".tif", ".tiff")
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", *PICTURES)
# "patient001_frame01", "patient001_ED", "case03_slice012": frames and slices of one patient belong together
FRAME = re.compile(r"^(.+?)[_-](?:frame|slice|sl|z|time|t|phase)[_-]?\d+$|^(.+?)[_-](?:ED|ES)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A case with its two label files and the fold whose validation it is of, if any."""

    case: str
    prediction: Path
    truth: Path
    fold: str | None = None


@dataclass(frozen=True)
class LabelPair:
    """Labels of a case as arrays of one shape, 2D or 3D, with the element size along each axis in ``unit``.

    ``outside``, of their shape, is where the ground truth has the ignore label; None where there is no such label.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...]
    unit: str
    outside: np.ndarray | None = None


def label_files(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """Label files of a folder by case; ``ending`` is taken from the files where it is not given.

    Raises:
        UserError: no such folder, or no or several kinds of label files.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder that holds the label files")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if ending is None:
        found = {known for path in files for known in ENDINGS if path.name.endswith(known)}
        if len(found) != 1:
            kinds = "no label files" if not found else "label files of several kinds (" + ", ".join(sorted(found)) + ")"
            raise UserError(f"{folder} holds {kinds}: one kind of {', '.join(ENDINGS)} is needed")
        (ending,) = found
    return {path.name[: -len(ending)]: path for path in files if path.name.endswith(ending)}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def pair_folders(predictions: Path, truth: Path, *, partial: bool = False) -> list[Pair]:
    """Pairs of two folders, which must hold the same cases.

    Args:
        partial: evaluate the predicted cases although others have ground truth too.

    Raises:
        UserError: predictions that are missing or that no ground truth belongs to; the sentence names them.
    """
    true_files = label_files(truth)
    if not true_files:
        raise UserError(f"{truth} holds no label files")
    example = next(iter(true_files.values())).name
    predicted_files = label_files(predictions, next(e for e in ENDINGS if example.endswith(e)))
    missing = sorted(true_files.keys() - predicted_files.keys())
    extra = sorted(predicted_files.keys() - true_files.keys())
    if extra:
        raise UserError(
            f"{predictions} holds {len(extra)} predictions without ground truth in {truth}: {_listed(extra)}; "
            "remove them or give the folder that has their ground truth"
        )
    if not predicted_files:
        raise UserError(f"{predictions} holds no predictions named like the ground truth, such as {example}")
    if missing and not partial:
        raise UserError(
            f"{predictions} lacks the predictions of {len(missing)} cases of {truth}: {_listed(missing)}; "
            "predict them, or add --partial to evaluate the others alone"
        )
    return [Pair(case, predicted_files[case], true_files[case]) for case in sorted(predicted_files)]


def pair_model_folder(
    model: Path, truth: Path | None = None, folds: Sequence[str] | None = None
) -> tuple[list[Pair], list[str]]:
    """Pairs of all folds' validation predictions in a trained-model folder, and the names of these folds.

    Ground truth is taken from ``truth``, or the preprocessed or raw dataset of nnU-Net's folders. Where the splits are
    there, every validation case of a fold must have been predicted.

    Raises:
        UserError: no validation predictions, missing ones, a case in two folds, or no ground truth.
    """
    if not model.is_dir():
        raise UserError(f"{model} is not a folder: give a trained-model folder, TRAINER__PLANS__CONFIGURATION")
    wanted = None if folds is None else [f"fold_{fold}" for fold in folds]
    # fold "all" was trained on its validation cases, so it counts only when asked for
    names = wanted or sorted(path.name for path in model.glob("fold_*") if path.name != "fold_all")
    present = [name for name in names if (model / name / "validation").is_dir()]
    if wanted is not None and len(present) < len(names):
        raise UserError(f"{model} has no validation predictions in {_listed(sorted(set(names) - set(present)))}")
    if not present:
        raise UserError(f"{model} has no fold_*/validation: finish a fold, or run nnUNetv2_train with --val")
    dataset = read_json(model / "plans.json", what="the plans of a trained model", schema=schemas.PLANS)["dataset_name"]
    if truth is None:
        truth = ground_truth_of(dataset)
    true_files = label_files(truth)
    splits = splits_of(dataset)
    pairs: dict[str, Pair] = {}
    for name in present:
        number = name.removeprefix("fold_")
        predicted = label_files(model / name / "validation")
        if splits is not None and number.isdigit() and int(number) < len(splits):
            _check_validation(model / name / "validation", predicted, splits[int(number)]["val"])
        for case, path in predicted.items():
            if case not in true_files:
                raise UserError(f"{path} has no ground truth in {truth}: give its folder with -g")
            if case in pairs:
                raise UserError(f"the case {case} was validated in {pairs[case].fold} and {name}: choose folds with -f")
            pairs[case] = Pair(case, path, true_files[case], name)
    return [pairs[case] for case in sorted(pairs)], present


def _check_validation(folder: Path, predicted: Mapping[str, Path], validation: Sequence[str]) -> None:
    """Raise a UserError unless the predictions in a fold's folder are those of its validation cases."""
    missing = sorted(set(validation) - predicted.keys())
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} validation cases: {_listed(missing)}; run nnUNetv2_train with --val for "
            "this fold"
        )
    others = sorted(predicted.keys() - set(validation))
    if others:
        raise UserError(
            f"{folder} holds {len(others)} cases that are not in this fold's validation: {_listed(others)}; "
            "splits_final.json was another one when they were predicted: train this fold anew"
        )


def ground_truth_of(dataset: str) -> Path:
    """The folder of a dataset's training labels, from nnU-Net's environment variables.

    Raises:
        UserError: it was not found.
    """
    tried = []
    for variable, folder in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        if root := os.environ.get(variable):
            candidate = Path(root) / dataset / folder
            if candidate.is_dir():
                return candidate
            tried.append(str(candidate))
    raise UserError(
        f"the ground truth of {dataset} was not found ({_listed(tried) or 'nnUNet_raw is not set'}): give it with -g"
    )


def splits_of(dataset: str) -> list[dict[str, list[str]]] | None:
    """nnU-Net's folds of a preprocessed dataset, None where they are not there."""
    root = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112 (nnU-Net's name)
    path = Path(root or "") / dataset / "splits_final.json"
    return read_json(path, what="nnU-Net's folds", schema=schemas.SPLITS) if root and path.exists() else None


def patients_of(cases: Sequence[str], dataset_folder: Path | None, pattern: str | None = None) -> dict[str, str]:
    """The patient of each case: by ``pattern`` (its first group), by ``conversion.json``, or by the case's name.

    Args:
        cases: names of cases.
        dataset_folder: a raw dataset, which a converter gave its ``conversion.json``, or the preprocessed one of it.
        pattern: regular expression.

    Raises:
        UserError: a pattern that is no regular expression with a group, or that a case does not match.
    """
    if pattern is not None:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"--patient {pattern!r} is no regular expression ({error})") from None
        found: dict[str, str] = {}
        for case in cases:
            match = expression.match(case)
            # an empty or absent group would make one patient of all cases
            patient = match[1] if match is not None and expression.groups else None
            if not patient:
                raise UserError(
                    f"--patient {pattern!r} needs a group that is the patient in every case, also [{case!r}]"
                )
            found[case] = patient
        return found
    known = {}
    path = None if dataset_folder is None else _conversion_summary(dataset_folder)
    if path is not None:
        facts = read_json(path, what="a converter's summary", schema=schemas.CONVERSION)["cases"]
        known = {case: fact["patient"] for case, fact in facts.items()}
    result = {}
    for case in cases:
        match = FRAME.match(case)
        result[case] = known.get(case) or (match and (match[1] or match[2])) or case
    return result


def _conversion_summary(dataset_folder: Path) -> Path | None:
    """The converter's summary in a dataset's folder or, for a preprocessed dataset, in the raw one of its name."""
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112 (nnU-Net's name)
    folders = [dataset_folder, *([Path(raw) / dataset_folder.name] if raw else [])]
    return next((path for folder in folders if (path := folder / "conversion.json").exists()), None)


def read_pair(
    pair: Pair, reader: Any, *, structures: Mapping[str, Sequence[int]], ignored: int | None = None
) -> LabelPair:
    """Read both files with one of nnU-Net's readers and check their labels and that they lie on the same grid.

    The labels are those of ``structures`` and the background; the ignore label too in the ground truth, where its
    elements become background in both (nnU-Net never predicts it). A case of a single slice is 2D.

    Raises:
        UserError: a file is not whole or can't be read, holds another label, or the two differ in shape, spacing,
            origin or direction.
    """
    known = {0}.union(*structures.values())
    prediction, ours = read_label_file(pair.prediction, reader, allowed=known)
    truth, theirs = read_label_file(pair.truth, reader, allowed=known if ignored is None else known | {ignored})
    different = differing_geometry((prediction.shape, ours), (truth.shape, theirs))
    if different is not None:
        what, found, expected = different
        raise UserError(
            f"{pair.prediction} is not aligned with {pair.truth}: its {what} is {_numbers(found)} and that of the "
            f"ground truth {_numbers(expected)}; predict from the image that the ground truth belongs to"
        )
    outside = truth == ignored  # nowhere, where there is no ignore label
    prediction[outside] = truth[outside] = 0
    (prediction, truth, outside), spacing, unit = as_measured(
        [prediction, truth, outside], theirs["spacing"], file=pair.truth
    )
    return LabelPair(prediction, truth, spacing, unit, None if ignored is None else outside)


def as_measured(
    labels: Sequence[np.ndarray], spacing: Sequence[float], *, file: Path
) -> tuple[list[np.ndarray], tuple[float, ...], str]:
    """Label arrays (D, H, W) of one case with the element size along each axis and its unit; a single slice is 2D.

    Args:
        file: that they were read from. A picture has no pixel size, a 2D file of another format has.
    """
    sizes = tuple(float(size) for size in spacing)
    if labels[0].shape[0] > 1:
        return list(labels), sizes, "mm"
    # read as 1 x H x W: pictures get a spacing of 999, 2D files of other formats a multiple of it
    picture = file.name.endswith(PICTURES) and sizes[0] == PICTURE_SPACING and sizes[1:] == (1.0, 1.0)
    unit = "px" if picture else "mm"
    return [array[0] for array in labels], sizes[1:], unit


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
