"""``inspect`` of datasets that are damaged: one sentence, and no overview is written."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import LABELS, heart, write_labels
from tests.support.faults import assert_refused, run, snapshot

IMAGE, LABEL = "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset008_Small"
    for case in ("a", "b"):
        write_labels(folder / f"imagesTr/{case}_0000.nii.gz", heart() * 50)
        write_labels(folder / f"labelsTr/{case}.nii.gz", heart())
    describe(folder)
    return folder


def describe(folder, **changes):
    description = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "numTraining": 2}
    # listed here, since nnU-Net lists a folder by a pool of processes
    ending = changes.get("file_ending", ".nii.gz")
    description["dataset"] = {
        case: {"images": [f"imagesTr/{case}_0000{ending}"], "label": f"labelsTr/{case}{ending}"} for case in ("a", "b")
    }
    (folder / "dataset.json").write_text(json.dumps({**description, **changes}))


def half(name):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def voxel(name, value, dtype):
    def damage(folder):
        image = nibabel.load(folder / name)
        values = np.asanyarray(image.dataobj).astype(dtype)
        values[3, 3, 1] = value
        nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / name)

    return damage


def _no_images(folder):
    shutil.rmtree(folder / "imagesTr")
    (folder / "imagesTr").mkdir()
    describe(folder, dataset={})


def _other_ending(folder):
    description = json.loads((folder / "dataset.json").read_text())
    del description["dataset"]
    (folder / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nrrd"}))


FAULTS = {
    "half an image": (half(IMAGE), [IMAGE, "truncated or damaged"]),
    "half a label": (half(LABEL), [LABEL, "truncated or damaged"]),
    "NaN in an image": (voxel(IMAGE, np.nan, np.float32), [IMAGE, "NaN or infinite voxels"]),
    "infinite image": (voxel(IMAGE, np.inf, np.float64), [IMAGE, "NaN or infinite voxels"]),
    "beyond fp32": (voxel(IMAGE, 1e300, np.float64), [IMAGE, "NaN or infinite voxels"]),
    "undeclared label": (voxel(LABEL, 7, np.uint8), [LABEL, "the label 7"]),
    "fraction": (voxel(LABEL, 0.4, np.float32), [LABEL, "the label 0.4"]),
    "another shape": (lambda folder: write_labels(folder / LABEL, heart()[:2]), [IMAGE, LABEL, "differ in shape"]),
    "another spacing": (
        lambda folder: write_labels(folder / LABEL, heart(), spacing=(1.5, 1.5, 5.0)),
        [IMAGE, LABEL, "differ in spacing"],
    ),
    "elsewhere": (
        lambda folder: write_labels(folder / LABEL, heart(), origin=(0, 0, 9.0)),
        [IMAGE, LABEL, "differ in origin"],
    ),
    "no label file": (lambda folder: (folder / LABEL).unlink(), [LABEL, "no file"]),
    "no image file": (lambda folder: (folder / IMAGE).unlink(), [IMAGE, "no file"]),
    "no images": (_no_images, ["holds no images"]),
    "no images of the ending": (_other_ending, ["holds no images", ".nrrd"]),
    "labels that are words": (lambda folder: describe(folder, labels={"background": 0, "RV": "one"}), ["RV"]),
    "no structure": (lambda folder: describe(folder, labels={"background": 0}), ["no structure"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_dataset_is_one_sentence(dataset, capsys, fault):
    damage, words = FAULTS[fault]
    damage(dataset)
    before = snapshot(dataset)
    assert_refused(run(capsys, "inspect", "-d", 8), *words)
    assert snapshot(dataset) == before


PICTURES = {
    "half a picture": (lambda path: path.write_bytes(path.read_bytes()[:-40]), ["truncated or damaged"]),
    "colours for a label": (lambda path: Image.new("RGB", (24, 24)).save(path), ["3 channels"]),
}


@pytest.mark.parametrize("fault", PICTURES)
def test_a_damaged_picture_is_named(dataset, capsys, fault):
    for case in ("a", "b"):
        Image.fromarray(heart()[0] * 50).save(dataset / f"imagesTr/{case}_0000.png")
        Image.fromarray(heart()[0]).save(dataset / f"labelsTr/{case}.png")
    describe(dataset, file_ending=".png")
    damage, words = PICTURES[fault]
    damage(dataset / "labelsTr" / "b.png")
    before = snapshot(dataset)
    assert_refused(run(capsys, "inspect", "-d", 8), "labelsTr/b.png", *words)
    assert snapshot(dataset) == before
