"""Metrics against values worked out by hand, and against MedPy on real labels."""

import math

import numpy as np
import pytest

from nnunetv2_levit.evaluation.case_metrics import METRICS, structure_metrics
from nnunetv2_levit.evaluation.surface_distances import surface_distances
from tests.conftest import library_or_skip


def mask(shape, *boxes):
    result = np.zeros(shape, dtype=bool)
    for box in boxes:
        result[tuple(slice(low, high) for low, high in box)] = True
    return result


def test_a_shifted_square_on_an_anisotropic_grid():
    truth = mask((12, 12), ((2, 6), (2, 6)))
    prediction = mask((12, 12), ((3, 7), (2, 6)))  # one row down
    result = structure_metrics(prediction, truth, spacing=(2.0, 0.5), tolerance=0.5, unit="mm")
    # 12 surface elements each; of the prediction's 6 lie on the truth's surface, the two inner ones of its first row
    # are one column (0.5) from it, the four of its last row one row (2.0); the same the other way round
    assert result.presence == "both"
    assert result.values == {
        "dice": pytest.approx(0.75),
        "iou": pytest.approx(0.6),
        "hd95": pytest.approx(2.0),
        "hd": pytest.approx(2.0),
        "asd": pytest.approx((2 * 0.5 + 4 * 2.0) / 12),
        "nsd": pytest.approx(8 / 12),
        "volume_difference": 0.0,
        "relative_volume_difference": 0.0,
    }


def test_two_voxels_apart_in_a_volume_of_thick_slices():
    truth, prediction = mask((5, 5, 5), ((1, 2), (1, 2), (1, 2))), mask((5, 5, 5), ((2, 3), (3, 4), (1, 2)))
    result = structure_metrics(prediction, truth, spacing=(10.0, 1.5, 1.2), tolerance=1.0, unit="mm")
    apart = math.hypot(10.0, 2 * 1.5)
    assert result.values["hd"] == result.values["hd95"] == result.values["asd"] == pytest.approx(apart)
    assert result.values["dice"] == result.values["nsd"] == 0.0


def test_the_two_hd95_definitions_where_they_differ():
    line, point = mask((1, 30), ((0, 1), (0, 21))), mask((1, 30), ((0, 1), (0, 1)))
    distances = surface_distances(line, point, (1.0, 1.0))
    assert distances.hausdorff() == 20
    assert distances.hausdorff_95() == pytest.approx(19.0)  # 95 % of 0 … 20
    assert distances.pooled_hausdorff_95() == pytest.approx(18.95)  # of 0, 0, 1 … 20


def test_volumes_are_in_ml_in_3d_and_areas_in_2d():
    cube = mask((4, 4, 4), ((0, 2), (0, 2), (0, 2)))
    more = mask((4, 4, 4), ((0, 2), (0, 2), (0, 4)))
    values = structure_metrics(more, cube, spacing=(5.0, 10.0, 2.0), tolerance=0, unit="mm").values
    assert values["volume_difference"] == pytest.approx(8 * 100 / 1000)
    assert values["relative_volume_difference"] == pytest.approx(1.0)
    values = structure_metrics(more[0], cube[0], spacing=(10.0, 2.0), tolerance=0, unit="mm").values
    assert values["volume_difference"] == pytest.approx(4 * 20)
    values = structure_metrics(cube[0], more[0], spacing=(1.0, 1.0), tolerance=0, unit="px").values
    assert values["volume_difference"] == -4


@pytest.mark.parametrize(
    ("predicted", "there", "presence", "defined"),
    [
        (False, False, "absent", {}),
        (
            False,
            True,
            "missed",
            {"dice": 0, "iou": 0, "nsd": 0, "volume_difference": -4, "relative_volume_difference": -1},
        ),
        (True, False, "spurious", {"dice": 0, "iou": 0, "nsd": 0, "volume_difference": 4}),
    ],
)
def test_empty_structures(predicted, there, presence, defined):
    square = mask((6, 6), ((1, 3), (1, 3)))
    result = structure_metrics(square & predicted, square & there, spacing=(1, 1), tolerance=1, unit="px")
    assert result.presence == presence
    assert result.values == {metric: defined.get(metric) for metric in METRICS}


def test_what_lies_at_the_rim_of_the_image_has_its_surface_there():
    full = np.ones((3, 3), dtype=bool)
    centre = mask((3, 3), ((1, 2), (1, 2)))
    # eight elements at the rim are the surface of the full square; the centre is inside it
    distances = surface_distances(full, centre, (1.0, 1.0))
    assert sorted(distances.prediction_to_truth) == pytest.approx([1] * 4 + [math.sqrt(2)] * 4)
    assert list(distances.truth_to_prediction) == [1.0]


def test_against_medpy_on_perturbed_real_labels(perturbed_acdc):
    medpy = library_or_skip("medpy.metric.binary")
    compared = 0
    for prediction, truth, spacing in perturbed_acdc:
        for label in (1, 2, 3):
            p, t = prediction == label, truth == label
            values = structure_metrics(p, t, spacing=spacing, tolerance=2, unit="mm").values
            assert values["dice"] == pytest.approx(medpy.dc(p, t))
            assert values["iou"] == pytest.approx(medpy.jc(p, t))
            assert values["hd"] == pytest.approx(medpy.hd(p, t, spacing))
            distances = surface_distances(p, t, spacing)
            assert distances.pooled_hausdorff_95() == pytest.approx(medpy.hd95(p, t, spacing))
            assert distances.prediction_to_truth.mean() == pytest.approx(medpy.asd(p, t, spacing))
            assert distances.truth_to_prediction.mean() == pytest.approx(medpy.asd(t, p, spacing))
            compared += 1
    assert compared >= 6
