"""Metrics of one structure in one case, and what they are where a structure is empty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunetv2_levit.evaluation.surface_distances import surface_distances

Presence = Literal["both", "missed", "spurious", "absent"]

DEFINITIONS = {
    "dice": "Dice similarity coefficient, 2|P∩T| / (|P|+|T|)",
    "iou": "intersection over union (Jaccard), |P∩T| / |P∪T|",
    "hd95": "larger of the two directions' 95th percentiles of the surface distances",
    "hd": "largest surface distance (Hausdorff distance)",
    "asd": "mean over the surface elements of both masks of the distance to the other surface (symmetric)",
    "nsd": "share of both surfaces' elements within the tolerance of the other surface (normalised surface Dice)",
    "volume_difference": "predicted minus true volume (ml), or area (mm² or pixels) where all cases are single slices; "
    "a single slice among volumes has none",
    "relative_volume_difference": "the same relative to the true volume",
}
METRICS = tuple(DEFINITIONS)
OVERLAPS = ("dice", "iou", "nsd")
EMPTY_RULES = {
    "absent": "in neither: no value for any metric; not part of means, counted",
    "missed": "in the ground truth only: DSC, IoU and NSD are 0, distances have no value, counted",
    "spurious": "in the prediction only: DSC, IoU and NSD are 0, distances and relative volume difference have no "
    "value, counted",
}


@dataclass(frozen=True)
class StructureMetrics:
    """What was measured; ``values`` has every name of `METRICS`, None where it is not defined."""

    presence: Presence
    values: dict[str, float | None]


def presence_of(prediction: np.ndarray, truth: np.ndarray) -> Presence:
    """Which of two boolean masks has any element."""
    predicted, there = bool(prediction.any()), bool(truth.any())
    if there:
        return "both" if predicted else "missed"
    return "spurious" if predicted else "absent"


def over_seeds(metric: str, values: Sequence[float | None]) -> float | None:
    """A case's value from those of several seeds: their mean, or None where one has none.

    Where a structure is in nobody's truth, a seed that predicts it has an overlap of 0, and one that does not has no
    value. Then the case has 0: else what one seed invents would count for nothing as soon as another does not.
    """
    defined = [value for value in values if value is not None]
    if defined and len(defined) < len(values):
        return 0.0 if metric in OVERLAPS else None
    return sum(defined) / len(defined) if defined else None


def structure_metrics(
    prediction: np.ndarray, truth: np.ndarray, *, spacing: Sequence[float], tolerance: float, unit: str
) -> StructureMetrics:
    """All metrics of one structure from two boolean masks of one shape, 2D or 3D.

    Args:
        spacing: element size along each axis, in mm or, for pictures, pixels.
        tolerance: of the normalised surface Dice, in the same unit.
        unit: "mm" or "px"; in 3D and mm volumes are in ml, in 2D they are areas in mm² or pixels.
    """
    presence = presence_of(prediction, truth)
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    if presence == "absent":
        return StructureMetrics(presence, values)
    predicted, there = int(prediction.sum()), int(truth.sum())
    common = int((prediction & truth).sum())
    element = float(np.prod(spacing))
    if unit == "mm" and truth.ndim == 3:
        element /= 1000.0
    values["dice"] = 2 * common / (predicted + there)
    values["iou"] = common / (predicted + there - common)
    values["volume_difference"] = (predicted - there) * element
    if there:
        values["relative_volume_difference"] = (predicted - there) / there
    if presence != "both":
        values["nsd"] = 0.0
        return StructureMetrics(presence, values)
    distances = surface_distances(prediction, truth, spacing)
    values["hd95"] = distances.hausdorff_95()
    values["hd"] = distances.hausdorff()
    values["asd"] = distances.average()
    values["nsd"] = distances.dice(tolerance)
    return StructureMetrics(presence, values)
