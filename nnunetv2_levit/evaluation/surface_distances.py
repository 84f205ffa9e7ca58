"""Distances between the surfaces of two binary masks, with MONAI's edges and distance transforms.

A surface is the set of mask elements with a neighbour (by a face) outside the mask or outside the image. Both sets of
distances are computed once and serve every surface metric, on the box around the two masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface element of one mask to the nearest one of the other, in the unit of the spacing (1D arrays)."""

    prediction_to_truth: np.ndarray
    truth_to_prediction: np.ndarray

    def hausdorff(self) -> float:
        """The largest distance of either direction (HD)."""
        return float(max(self.prediction_to_truth.max(), self.truth_to_prediction.max()))

    def hausdorff_95(self) -> float:
        """The larger of the two directions' 95th percentiles (HD95 as in MONAI and DeepMind's surface-distance)."""
        return float(max(np.percentile(d, 95) for d in (self.prediction_to_truth, self.truth_to_prediction)))

    def pooled_hausdorff_95(self) -> float:
        """The 95th percentile of both directions' distances taken together (HD95 as in MedPy)."""
        return float(np.percentile(np.concatenate([self.prediction_to_truth, self.truth_to_prediction]), 95))

    def average(self) -> float:
        """The mean over the surface elements of both masks (symmetric ASD)."""
        return float(np.concatenate([self.prediction_to_truth, self.truth_to_prediction]).mean())

    def dice(self, tolerance: float) -> float:
        """Share of both surfaces' elements no farther than ``tolerance`` from the other surface (NSD)."""
        distances = np.concatenate([self.prediction_to_truth, self.truth_to_prediction])
        return float((distances <= tolerance).mean())


def surface_distances(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between two boolean masks of one shape (2D or 3D), neither of them empty.

    Args:
        spacing: size of an element along each axis of the arrays.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = []
    either = prediction | truth
    for axis in range(either.ndim):
        present = np.flatnonzero(either.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
        # one element of margin: what lies at the rim of the box is not at the rim of the image
        box.append(slice(max(0, present[0] - 1), present[-1] + 2))
    edges = get_mask_edges(prediction[tuple(box)], truth[tuple(box)], crop=False)
    spacing = tuple(float(size) for size in spacing)
    return SurfaceDistances(
        prediction_to_truth=np.asarray(get_surface_distance(edges[0], edges[1], spacing=spacing)),
        truth_to_prediction=np.asarray(get_surface_distance(edges[1], edges[0], spacing=spacing)),
    )
