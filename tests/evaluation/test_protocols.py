"""The papers' figures against their own computation, written out here."""

import numpy as np
import pytest

from nnunetv2_levit.evaluation.protocols import PROTOCOLS, _resized
from tests.conftest import library_or_skip


def square(shape=(10, 10), box=((2, 6), (2, 6))):
    result = np.zeros(shape, dtype=bool)
    result[tuple(slice(*side) for side in box)] = True
    return result


@pytest.mark.parametrize("name", ["transunet", "levit-unet"])
@pytest.mark.parametrize(
    ("predicted", "there", "expected"),
    [(True, False, (1.0, 0.0)), (False, True, (0.0, 0.0)), (False, False, (0.0, 0.0)), (True, True, (1.0, 0.0))],
)
def test_what_transunets_code_makes_of_empty_structures(name, predicted, there, expected):
    values = PROTOCOLS[name].measure(square() & predicted, square() & there, None)
    assert (values["dice"], values["hd95"]) == expected


def test_transunets_figures_are_medpys_without_spacing(perturbed_acdc):
    medpy = library_or_skip("medpy.metric.binary")
    for prediction, truth, _ in perturbed_acdc[:2]:
        for label in (1, 3):
            p, t = prediction == label, truth == label
            values = PROTOCOLS["transunet"].measure(p, t, None)
            assert values["dice"] == pytest.approx(medpy.dc(p, t))
            assert values["hd95"] == pytest.approx(medpy.hd95(p, t))


def test_em_averages_the_iou_over_ten_thresholds():
    truth = square()
    probability = np.zeros((10, 10))
    probability[2:6, 2:6] = 0.72  # found up to the threshold 0.70: five of ten
    probability[8, 8] = 0.52  # one false element at 0.50 only
    values = PROTOCOLS["unet2022-em"].measure(probability > 0.5, truth, probability)
    assert values["miou"] == pytest.approx((16 / 17 + 4 * 1.0) / 10)
    assert values["iou_at_0.5"] == pytest.approx(16 / 17)


def test_isic_scores_at_its_size_and_with_its_constants():
    truth, prediction = square((192, 256), ((0, 96), (0, 256))), square((192, 256), ((48, 144), (0, 256)))
    values = PROTOCOLS["isic"].measure(prediction, truth, None)
    half, whole = 48 * 256, 96 * 256
    assert values["dice"] == pytest.approx(2 * (half + 0.001) / (2 * whole + 0.001))
    assert values["iou"] == pytest.approx((half + 0.001) / (3 * half + 0.001))
    assert values["accuracy"] == pytest.approx(0.5)
    nothing = np.zeros((192, 256), dtype=bool)
    assert PROTOCOLS["isic"].measure(nothing, nothing, None)["dice"] == pytest.approx(2.0)  # as coded
    # a larger picture is resized, edges in the middle of a pixel go with the majority
    large = _resized(square((384, 512), ((0, 192), (0, 512))), (192, 256))
    np.testing.assert_array_equal(large, truth)


def test_polyp_averages_over_256_thresholds():
    rng = np.random.default_rng(0)
    truth = square()
    score = rng.random((10, 10)) * 0.6 + 0.3 * truth
    stretched = (score - score.min()) / (score.max() - score.min())
    dice, iou = [], []
    for threshold in np.linspace(1, 0, 256):
        predicted = stretched >= threshold
        common = (predicted & truth).sum()
        dice.append(2 * common / (predicted.sum() + truth.sum()) if common else 0.0)
        iou.append(common / (predicted | truth).sum() if common else 0.0)
    values = PROTOCOLS["polyp"].measure(score > 0.5, truth, score)
    assert values["mdice"] == pytest.approx(np.mean(dice))
    assert values["miou"] == pytest.approx(np.mean(iou))
    # labels alone: right at all thresholds but 0, where everything is foreground
    values = PROTOCOLS["polyp"].measure(truth, truth, None)
    assert values["mdice"] == pytest.approx((255 + 2 * 16 / 116) / 256)
