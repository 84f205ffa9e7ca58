"""Which part of a slice is looked at."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunetv2_levit.analysis.case_slices import PreparedCase, choose_patch
from nnunetv2_levit.inference.case_files import Case

HEIGHT, WIDTH = 90, 120


def patch_of(boxes, patch_size=(32, 48)):
    """The patch of a slice whose one structure fills the boxes (top, left, height, width)."""
    mask = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    for top, left, height, width in boxes:
        mask[0, top : top + height, left : left + width] = True
    properties = {
        "bbox_used_for_cropping": [[0, 1], [0, HEIGHT], [0, WIDTH]],
        "shape_before_cropping": (1, HEIGHT, WIDTH),
    }
    case = Case("a", (Path("a_0000.nii.gz"),), Path("a"))
    prepared = PreparedCase(case, np.zeros((1, 1, HEIGHT, WIDTH), np.float32), {"lung": mask}, properties)
    return choose_patch(SimpleNamespace(patch_size=patch_size), prepared)


@pytest.mark.parametrize(
    ("boxes", "seen"),
    [
        ([(40, 50, 10, 20)], 200),
        ([(0, 0, 4, 4), (80, 110, 6, 6)], 36),
        ([(2, 5, 6, 9), (2, 100, 6, 9), (70, 100, 8, 9), (70, 20, 3, 3)], 72),
        ([(0, 0, HEIGHT, WIDTH)], 32 * 48),
    ],
    ids=["in one place", "in two corners", "in four", "everywhere"],
)
def test_the_patch_holds_as_much_as_it_can_of_what_lies_far_apart(boxes, seen):
    patch = patch_of(boxes)
    assert patch.masks["lung"].sum() == seen
    (query,) = patch.queries
    assert query.structure == "lung"
