"""``predict`` of damaged images: the case is named, the others are done, and a second run does what is missing."""

import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_levit import cli
from tests.inference.model_folders import write_case, write_model_folder
from tests.support.faults import assert_refused, run

IMAGE = "images/a_0000.nii.gz"
HERE = ("-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("trained") / "model", folds=(0,), patch_size=(32, 32))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    volume = np.random.default_rng(0).random((2, 30, 30)) * 200
    return write_case(tmp_path_factory.mktemp("clean"), "clean", volume)


def voxel(value, dtype=np.float32):
    def damage(path):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj).astype(dtype)
        values[3, 3, 1] = value
        nibabel.save(nibabel.Nifti1Image(values, image.affine), path)

    return damage


def rewritten(change):
    def damage(path):
        sitk.WriteImage(change(sitk.ReadImage(str(path))), str(path))

    return damage


def _with_fourth_dimension(image):
    return sitk.JoinSeries([image, image])


DAMAGED = {
    "half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "truncated or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("404"), "no gzip file"),
    "nan": (voxel(np.nan), "contains NaN or infinite voxels"),
    "infinite": (voxel(np.inf), "contains NaN or infinite voxels"),
    "beyond_fp32": (voxel(1e300, np.float64), "contains NaN or infinite voxels"),
    "complex": (rewritten(lambda image: sitk.Cast(image, sitk.sitkComplexFloat32)), "no real numbers"),
    "colours": (
        rewritten(lambda image: sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3)),
        "shape is [30, 30, 2, 1, 3]",
    ),
    "series": (rewritten(_with_fourth_dimension), "4 dimensions"),
}


def test_each_damaged_image_is_named_and_the_whole_ones_are_done(model, clean, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("whole", *DAMAGED):
        shutil.copy(clean, images / f"{name}_0000.nii.gz")
    for name, (damage, _) in DAMAGED.items():
        damage(images / f"{name}_0000.nii.gz")
    outcome = run(capsys, "predict", "-m", model, "-i", images, "-o", out, *HERE)
    assert_refused(outcome, f"{len(DAMAGED)} of {len(DAMAGED) + 1} cases were not predicted", code=1)
    for name, (_, words) in DAMAGED.items():
        (sentence,) = (line for line in outcome.sentences if line.startswith(f"error: {name} was not predicted: "))
        assert words in sentence
        assert f"{name}_0000.nii.gz" in sentence
    assert {path.name for path in out.glob("*.nii.gz")} == {"whole.nii.gz"}
    assert not list(out.glob(".*"))


def _half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


LEFT = {
    "an empty segmentation": (".nii.gz", lambda path: path.write_bytes(b"")),
    "half a segmentation": (".nii.gz", _half),
    "no segmentation": (".nii.gz", lambda path: path.unlink()),
    "empty probabilities": (".npz", lambda path: path.write_bytes(b"")),
    "half the probabilities": (".npz", _half),
    "probabilities of text": (".npz", lambda path: np.savez(path, probabilities=np.array(["a"]))),
}


@pytest.fixture(scope="module")
def predicted(model, clean, tmp_path_factory):
    """Images of two cases, and what a whole run made of them."""
    folder = tmp_path_factory.mktemp("predicted")
    (folder / "images").mkdir()
    for name in ("a", "b"):
        shutil.copy(clean, folder / "images" / f"{name}_0000.nii.gz")
    arguments = ("predict", "-m", model, "-i", folder / "images", "-o", folder / "out", "--save_probabilities", *HERE)
    cli.main([str(argument) for argument in arguments])
    return folder


IN_3D = {
    "half an image": (
        lambda folder: _half(folder / "images" / "a_0000.nii.gz"),
        "a_0000.nii.gz is truncated or damaged",
    ),
    "a NaN": (lambda folder: voxel(np.nan)(folder / IMAGE), "a_0000.nii.gz contains NaN"),
    "an empty segmentation": (
        lambda folder: (folder / "out" / "a.nii.gz").touch(),
        "a.nii.gz or its .npz is truncated",
    ),
}


@pytest.mark.parametrize("fault", IN_3D)
def test_what_nnunet_itself_predicts_is_checked_before(clean, tmp_path, capsys, fault):
    model = write_model_folder(tmp_path / "model", folds=(0,), patch_size=(4, 16, 16))
    for name in ("images", "out"):
        (tmp_path / name).mkdir()
    shutil.copy(clean, tmp_path / "images" / "a_0000.nii.gz")
    damage, words = IN_3D[fault]
    damage(tmp_path)
    flags = ("-m", model, "-i", tmp_path / "images", "-o", tmp_path / "out", "--continue_prediction")
    assert_refused(run(capsys, "predict", *flags, *HERE), words)


@pytest.mark.parametrize("left", LEFT)
def test_what_is_not_whole_is_predicted_again(predicted, model, capsys, tmp_path, left):
    out = tmp_path / "out"
    shutil.copytree(predicted / "out", out)
    ending, damage = LEFT[left]
    damage(out / f"a{ending}")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("b.*")}
    flags = ("--continue_prediction", "--save_probabilities")
    assert run(capsys, "predict", "-m", model, "-i", predicted / "images", "-o", out, *flags, *HERE).code == 0
    for name in ("a.nii.gz", "b.nii.gz"):
        found, expected = (sitk.GetArrayFromImage(sitk.ReadImage(str(f / name))) for f in (out, predicted / "out"))
        np.testing.assert_array_equal(found, expected)
    with np.load(out / "a.npz") as found, np.load(predicted / "out" / "a.npz") as expected:
        np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("b.*")} == before
