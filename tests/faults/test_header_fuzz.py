"""A few of the seeded corruptions of NIfTI files; the long form is ``python -m tests.support.header_fuzz``."""

import pytest

from tests.support.corruptions import KINDS
from tests.support.fuzz_scenes import convert_scene, evaluate_scene, inspect_scene, write_predict_scene
from tests.support.header_fuzz import GOOD, predict_outcomes

COUNT = 2 * len(KINDS)  # every kind in an image and in a label, or in a prediction and in a truth


@pytest.mark.parametrize("make_scene", [convert_scene, evaluate_scene, inspect_scene])
def test_a_corrupted_file_is_named_or_changes_nothing(make_scene, tmp_path):
    scene = make_scene(tmp_path)
    outcomes = [scene.outcome(number) for number in range(COUNT)]
    assert [outcome for outcome in outcomes if outcome.result not in GOOD] == []
    assert len({outcome.result for outcome in outcomes}) > 1


def test_a_corrupted_image_is_named_or_predicted_alike(tmp_path):
    model, clean = write_predict_scene(tmp_path)
    outcomes = predict_outcomes(range(len(KINDS)), model=model, clean=clean, folder=tmp_path / "predicted")
    assert [outcome for outcome in outcomes if outcome.result not in GOOD] == []
    assert len({outcome.result for outcome in outcomes}) > 1
