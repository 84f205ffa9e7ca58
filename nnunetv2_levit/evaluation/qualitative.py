"""A panel of the worst, median and best case: image, ground truth, each model, and where each is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.label_files import Pair, read_pair
from nnunetv2_levit.image_files import read_images
from nnunetv2_levit.nnunet.dataset_description import reader_of
from nnunetv2_levit.plain_text import figure_label

ERROR_COLOURS = {"missed": "#00e5ff", "spurious": "#ff1744", "wrong structure": "#ffea00"}
MARGIN = 0.35  # of the labelled box, around it


def prediction_path(evaluation: dict[str, Any], entry: dict[str, Any]) -> Path:
    """Where the prediction of a case lies, from an evaluation of a folder or a trained-model folder."""
    folder = Path(evaluation["predictions"])
    if entry["fold"]:
        folder = folder / entry["fold"] / "validation"
    return folder / f"{entry['case']}{evaluation['file_ending']}"


def _entry(evaluation: dict[str, Any], case: str) -> dict[str, Any] | None:
    return next((entry for entry in evaluation["cases"] if entry["case"] == case), None)


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
    """0 where right, 1 missed, 2 spurious, 3 another structure."""
    wrong = prediction != truth
    return np.select([wrong & (prediction == 0), wrong & (truth == 0), wrong], [1, 2, 3], 0)


def draw_panel(evaluations: Sequence[dict[str, Any]], images: Path, target: Path) -> dict[str, Any]:
    """Draw the panel as a PNG; cases are chosen by the first evaluation.

    Args:
        images: folder of the images in nnU-Net's naming (CASE_0000…); the first channel is shown.

    Returns:
        Which case and slice each row shows.

    Raises:
        UserError: an image or a prediction is missing, or a model was not evaluated on a chosen case.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    first = evaluations[0]
    reader = reader_of({"file_ending": first["file_ending"]})()
    chosen = chosen_cases(first)
    rows = [_row(rank, case, evaluations, images, reader) for rank, case in chosen.items()]
    values = sorted({value for several in first["structures"].values() for value in several})
    # of regions: the structures that a label belongs to
    names = [" + ".join(s for s, several in first["structures"].items() if value in several) for value in values]
    count = len(values)
    colours = plt.get_cmap("tab10" if count <= 10 else "tab20")
    labels = ListedColormap([colours(i % colours.N) for i in range(count)])
    columns = 2 + 2 * len(evaluations)
    figure, axes = plt.subplots(len(rows), columns, figsize=(2.5 * columns, 2.7 * len(rows) + 0.7), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        pictures = [("image", None, None), ("ground truth", row["truth"], None)]
        for name, prediction, score in row["predictions"]:
            label = figure_label(name)
            pictures += [
                (f"{label}\nDSC {'–' if score is None else f'{100 * score:.1f} %'}", prediction, None),
                (f"{label}\nerrors", None, error_map(prediction, row["truth"])),
            ]
        for axis, (title, mask, errors) in zip(line, pictures, strict=True):
            axis.imshow(row["image"], cmap="gray", vmin=row["range"][0], vmax=row["range"][1], aspect=row["aspect"])
            if mask is not None:
                index = np.ma.masked_equal(np.searchsorted(values, mask) + (mask > 0), 0) - 1
                axis.imshow(index, cmap=labels, vmin=-0.5, vmax=count - 0.5, alpha=0.55, aspect=row["aspect"],
                            interpolation="nearest")  # fmt: skip
            if errors is not None:
                axis.imshow(np.ma.masked_equal(errors, 0), cmap=ListedColormap(list(ERROR_COLOURS.values())), vmin=0.5,
                            vmax=3.5, alpha=0.85, aspect=row["aspect"], interpolation="nearest")  # fmt: skip
            axis.set_title(title, fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"{row['rank']}: {figure_label(row['case'])}\n{row['where']}", fontsize=8)
    handles = [plt.Rectangle((0, 0), 1, 1, color=labels(i), label=figure_label(name)) for i, name in enumerate(names)]
    handles += [plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in ERROR_COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncol=min(8, len(handles)), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.5 / (2.7 * len(rows) + 0.7), 1, 1))
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return {row["rank"]: {"case": row["case"], "slice": row["where"]} for row in rows}


def _row(rank: str, case: str, evaluations: Sequence[dict[str, Any]], images: Path, reader: Any) -> dict[str, Any]:
    ending = evaluations[0]["file_ending"]
    image_file = images / f"{case}_0000{ending}"
    if not image_file.is_file():
        raise UserError(f"{image_file} is missing: give the folder of the evaluated images with --images")
    image = read_images([image_file], reader)[0][0]
    predictions, truth, spacing = [], None, None
    for evaluation in evaluations:
        entry = _entry(evaluation, case)
        if entry is None:
            raise UserError(f"{evaluation['name']} was not evaluated on {case}: evaluate all models on the same cases")
        truth_file = Path(evaluation["ground_truth"]) / f"{case}{ending}"
        pair = read_pair(
            Pair(case, prediction_path(evaluation, entry), truth_file),
            reader,
            structures=evaluation["structures"],
            ignored=evaluation["ignore_label"],
        )
        predictions.append((evaluation["name"], pair.prediction))
        truth, spacing = pair.truth, pair.spacing
    if image.shape[-2:] != truth.shape[-2:] or (truth.ndim == 3 and image.shape != truth.shape):
        raise UserError(f"{image_file} and its labels differ in shape: give the images that were predicted")
    index, where = 0, "one slice"
    if truth.ndim == 3:
        areas = (truth > 0) if rank != "worst" else (predictions[0][1] != truth)
        index = int(areas.reshape(len(truth), -1).sum(axis=1).argmax())
        what = "most errors" if rank == "worst" else "largest structures"
        where = f"slice {index + 1} of {len(truth)}, {what}"
    truth = _slice(truth, index)
    shown = [(name, _slice(prediction, index)) for name, prediction in predictions]
    window = _window([truth, *(prediction for _, prediction in shown)])
    picture = _slice(image[0] if truth.ndim == image.ndim - 1 and len(image) == 1 else image, index)[window]
    return {
        "rank": rank,
        "case": case,
        "where": where,
        "image": picture,
        "range": np.percentile(picture, (1, 99.5)),
        "aspect": spacing[-2] / spacing[-1],
        "truth": truth[window],
        "predictions": [
            (name, prediction[window], _case_mean(_entry(evaluation, case)))
            for (name, prediction), evaluation in zip(shown, evaluations, strict=True)
        ],
    }
