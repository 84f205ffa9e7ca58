"""Label files to evaluate: a tiny dataset, and real labels with known disturbances."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
SPACING = (1.5, 1.5, 10.0)  # x, y, z


def write_labels(path, array, *, spacing=SPACING, origin=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(array, dtype=np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return path


def heart(shift=0):
    """Three structures in a 3 x 24 x 24 volume, moved ``shift`` columns."""
    array = np.zeros((3, 24, 24), dtype=np.uint8)
    array[:, 8:18, 3 + shift : 7 + shift] = 1
    array[:, 7:19, 8 + shift : 18 + shift] = 2
    array[:, 10:16, 11 + shift : 15 + shift] = 3
    return array


@pytest.fixture
def folders(tmp_path):
    """Ground truth of six cases of three patients, and two models: A is a column off, B exact but for one case."""
    cases = [f"patient{number:03d}_frame{frame:02d}" for number in (1, 2, 3) for frame in (1, 12)]
    for index, case in enumerate(cases):
        write_labels(tmp_path / "labelsTr" / f"{case}.nii.gz", heart())
        write_labels(tmp_path / "A" / f"{case}.nii.gz", heart(1))
        write_labels(tmp_path / "B" / f"{case}.nii.gz", heart(2 if index == 0 else 0))
    description = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "name": "ACDC"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


@pytest.fixture(scope="session")
def perturbed_acdc(real_acdc):
    """(prediction, truth, spacing) of four real frames; each structure is moved a little in the plane."""
    rng = np.random.default_rng(0)
    result = []
    for path in sorted((real_acdc / "training").glob("*/*_gt.nii.gz"))[:8:2]:
        image = sitk.ReadImage(str(path))
        # the middle four slices: MedPy is slow
        whole = sitk.GetArrayFromImage(image)
        truth = whole[len(whole) // 2 - 2 : len(whole) // 2 + 2]
        prediction = np.zeros_like(truth)
        for label in (1, 2, 3):
            prediction[np.roll(truth == label, rng.integers(-3, 4, 2), (1, 2))] = label
        result.append((prediction, truth, image.GetSpacing()[::-1]))
    return result
