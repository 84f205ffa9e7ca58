"""ACDC's conversion, on the phantom, on faulty copies of it, and on the real patients where they are present."""

import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_levit import cli
from nnunetv2_levit.dataset_conversion import acdc
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import replaced_at_the_end


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"), patients=10, size=40, slices=2)


@pytest.fixture
def source(phantom, tmp_path):
    return Path(shutil.copytree(phantom, tmp_path / "source"))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def convert(source, *flags):
    cli.main(["convert", "acdc", "-i", str(source), "-d", "27", *flags])


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same_voxels(original: Path, converted: Path):
    before, after = nibabel.load(original), nibabel.load(converted)
    expected = np.asanyarray(before.dataobj)
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), expected)
    image = sitk.ReadImage(str(converted))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected.transpose(2, 1, 0))
    spacing = np.asarray(before.header["pixdim"][1:4], dtype=float)
    np.testing.assert_allclose(image.GetSpacing(), spacing, atol=1e-5)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(after.affine), spacing, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6)


def assert_all_converted(source: Path, target: Path, count: int):
    frames = sorted(path for path in source.rglob("*_frame*.nii.gz") if "_gt" not in path.name)
    assert len(frames) == count
    for frame in frames:
        case = frame.name.removesuffix(".nii.gz")
        assert_same_voxels(frame, target / "imagesTr" / f"{case}_0000.nii.gz")
        assert_same_voxels(frame.with_name(f"{case}_gt.nii.gz"), target / "labelsTr" / f"{case}.nii.gz")


@pytest.mark.parametrize("part", ["", "training"])
def test_conversion_keeps_every_voxel_and_the_spacing(source, raw, part):
    before = snapshot(source)
    convert(source / part)
    target = raw / "Dataset027_ACDC"
    assert_all_converted(source, target, 20)
    description = json.loads((target / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    assert description["numTraining"] == 20
    assert names_in(raw) == ["Dataset027_ACDC"]
    assert snapshot(source) == before


def test_default_splits_keep_patients_together(source, raw):
    convert(source)
    folds = json.loads((raw / "Dataset027_ACDC" / "splits_final.json").read_text())
    assert len(folds) == 5
    for fold in folds:
        train, val = ({case.split("_")[0] for case in fold[side]} for side in ("train", "val"))
        assert not train & val
        assert len(train | val) == 10


@pytest.mark.parametrize(("scheme", "sizes"), [("levit_unet", (16, 4)), ("unet2022", (14, 2)), ("none", None)])
def test_papers_shares_and_no_split(source, raw, scheme, sizes):
    convert(source, "--splits", scheme)
    target = raw / "Dataset027_ACDC"
    decision = json.loads((target / "conversion.json").read_text())["decisions"]["splits"]
    assert decision["scheme"] == scheme
    if sizes is None:
        assert not (target / "splits_final.json").exists()
    else:
        (fold,) = json.loads((target / "splits_final.json").read_text())
        assert (len(fold["train"]), len(fold["val"])) == sizes
        assert "ours" in decision["source"]


def test_testing_patients_become_test_images_with_or_without_truth(source, raw):
    (source / "testing").mkdir()
    shutil.move(source / "training" / "patient009", source / "testing" / "patient009")
    shutil.move(source / "training" / "patient010", source / "testing" / "patient010")
    for path in (source / "testing" / "patient010").glob("*_gt.nii.gz"):
        path.unlink()
    convert(source)
    target = raw / "Dataset027_ACDC"
    assert len(list((target / "imagesTs").iterdir())) == 4
    assert {path.name.split("_")[0] for path in (target / "labelsTs").iterdir()} == {"patient009"}
    assert len(list((target / "imagesTr").iterdir())) == 16


def test_4d_files_are_ignored_and_info_is_optional(source, raw):
    patient = source / "training" / "patient001"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2, 3), np.int16), np.eye(4)), patient / "patient001_4d.nii.gz")
    for path in source.rglob("Info.cfg"):
        path.unlink()
    convert(source)
    target = raw / "Dataset027_ACDC"
    assert len(list((target / "imagesTr").iterdir())) == 20
    assert len(json.loads((target / "splits_final.json").read_text())) == 5


def patient(source):
    return source / "training" / "patient003"


def frame(source, suffix=""):
    return patient(source) / f"patient003_frame01{suffix}.nii.gz"


def rewrite(path, change):
    image = nibabel.load(path)
    header = image.header.copy()
    data = change(np.asanyarray(image.dataobj), header)
    header.set_data_dtype(data.dtype)
    nibabel.save(nibabel.Nifti1Image(data, image.affine, header), path)


def labelled_255(data, header):
    data = data.copy()
    data[0, 0, 0] = 255
    return data


def half_label(data, header):
    data = data.astype(np.float32)
    data[0, 0, 0] = 1.5
    return data


def with_nan(data, header):
    data = data.astype(np.float32)
    data[1, 1, 1] = np.nan
    return data


def with_spacing(data, header):
    header["pixdim"][1:4] = (2, 2, 10)
    return data


def remove_frames(source):
    for path in patient(source).glob("*.nii.gz"):
        path.unlink()


FAULTS = {
    "missing ground truth": (lambda s: frame(s, "_gt").unlink(), "patient003_frame01_gt.nii.gz is missing"),
    "shapes differ": (lambda s: rewrite(frame(s, "_gt"), lambda d, h: d[:-1]), "has shape"),
    "spacings differ": (lambda s: rewrite(frame(s, "_gt"), with_spacing), "has spacing"),
    "truncated": (lambda s: frame(s).write_bytes(frame(s).read_bytes()[:-200]), "truncated or damaged"),
    "truncated inside": (
        lambda s: frame(s).write_bytes(gzip.compress(gzip.decompress(frame(s).read_bytes())[:-100])),
        "is truncated",
    ),
    "bit flipped": (
        lambda s: frame(s).write_bytes(frame(s).read_bytes()[:-8] + b"\0\0\0\0" + frame(s).read_bytes()[-4:]),
        "truncated or damaged",
    ),
    "not NIfTI": (lambda s: frame(s).write_bytes(gzip.compress(b"x" * 2000)), "is not a NIfTI image"),
    "empty file": (lambda s: frame(s).write_bytes(b""), "patient003_frame01.nii.gz"),
    "label 255": (lambda s: rewrite(frame(s, "_gt"), labelled_255), "label 255"),
    "label 1.5": (lambda s: rewrite(frame(s, "_gt"), half_label), "label 1.5"),
    "NaN": (lambda s: rewrite(frame(s), with_nan), "NaN"),
    "four dimensions": (lambda s: rewrite(frame(s), lambda d, h: d[..., None].repeat(2, 3)), "4 dimensions"),
    "no frames": (remove_frames, "holds no frame"),
    "Info names a missing frame": (
        lambda s: (patient(s) / "Info.cfg").write_text("ED: 1\nES: 29\nGroup: NOR\n"),
        "names frame 29 as ES",
    ),
    "Info misses a frame": (lambda s: (patient(s) / "Info.cfg").write_text("ED: 1\nES: 1\n"), "neither ED nor ES"),
    "Info unreadable": (lambda s: (patient(s) / "Info.cfg").write_text("ED 1\n"), "line 1"),
    "Info without number": (lambda s: (patient(s) / "Info.cfg").write_text("ED: first\n"), "frame number"),
    "empty folder": (lambda s: shutil.rmtree(s / "training"), "holds no training cases of acdc"),
    "no folder": (shutil.rmtree, "there is no folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gives_one_sentence_exit_code_2_and_leaves_nothing(fault, source, raw, capsys):
    damage, words = FAULTS[fault]
    damage(source)
    before = snapshot(source) if source.exists() else {}
    with pytest.raises(SystemExit) as stop:
        convert(source)
    assert stop.value.code == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in sentence
    assert "source" in sentence  # names the file or folder
    assert not raw.exists() or names_in(raw) == []
    assert (snapshot(source) if source.exists() else {}) == before


def copy_patient(source, number, *, label_changed):
    """A copy of patient 3 under another number, as a release with a mix-up would have it."""
    target = source / "training" / f"patient{number:03d}"
    target.mkdir()
    for path in patient(source).iterdir():
        shutil.copy(path, target / path.name.replace("patient003", target.name))
    if label_changed:
        for path in target.glob("*_gt.nii.gz"):
            rewrite(path, lambda data, header: np.where(data == 2, 3, data).astype(np.uint8))


def test_a_copied_patient_is_refused(source, raw, capsys):
    copy_patient(source, 11, label_changed=False)
    with pytest.raises(SystemExit) as stop:
        convert(source)
    assert stop.value.code == 2
    assert re.search(r"patient011_frame\d+\.nii\.gz is a copy of .*patient003_frame", capsys.readouterr().err)
    assert names_in(raw) == []


@pytest.mark.parametrize("scheme", ["crossval", "levit_unet", "unet2022"])
def test_patients_with_the_same_images_and_other_labels_share_a_fold(source, raw, capsys, scheme):
    for number in (11, 12, 13):
        copy_patient(source, number, label_changed=False)
        for path in (source / "training" / f"patient{number:03d}").glob("*_gt.nii.gz"):
            rewrite(path, lambda data, header, n=number: np.roll(data, n, axis=0))
    convert(source, "--splits", scheme)
    assert "have the same image: they stay in the same fold" in capsys.readouterr().out
    same = {f"patient{n:03d}" for n in (3, 11, 12, 13)}
    for fold in json.loads((raw / "Dataset027_ACDC" / "splits_final.json").read_text()):
        for side in fold.values():
            assert len(same & {case.split("_")[0] for case in side}) in (0, 4)


def test_a_resaved_copy_is_a_copy(source, raw, capsys):
    """By shape and values: neither header nor data type of the file count."""
    copy_patient(source, 11, label_changed=False)
    for path in (source / "training" / "patient011").glob("*frame??.nii.gz"):
        image = nibabel.load(path)
        image.set_data_dtype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine, image.header), path)
        rewrite(path, lambda data, header: (header.__setitem__("descrip", b"saved anew"), data)[1])
    with pytest.raises(SystemExit):
        convert(source)
    assert re.search(r"patient011_frame\d+\.nii\.gz is a copy of .*patient003_frame", capsys.readouterr().err)


def test_notes_say_what_folds_do_not_keep_apart(source, raw, capsys):
    convert(source, "--splits", "none")
    assert "no folds were written, and nnU-Net's own are by case" in capsys.readouterr().out
    convert(source, "--splits", "levit_unet", "--overwrite")
    assert "there is fold 0 only" in capsys.readouterr().out
    convert(source, "--overwrite")
    said = capsys.readouterr().out
    assert "no folds" not in said
    assert "fold 0 only" not in said


def test_an_image_for_training_and_testing_is_named(source, raw, capsys):
    target = source / "testing" / "patient101"
    target.mkdir(parents=True)
    for path in patient(source).iterdir():
        if not path.name.endswith("_gt.nii.gz"):
            shutil.copy(path, target / path.name.replace("patient003", target.name))
    convert(source)
    said = capsys.readouterr().out
    assert "have the same image, for training and for testing: figures of the test cases will be too good" in said
    assert "stay in the same fold" not in said


def test_the_testing_folder_is_not_taken_for_training(source, raw, capsys):
    (source / "training").rename(source / "testing")
    with pytest.raises(SystemExit):
        convert(source / "testing")
    assert "holds ACDC's patients for testing" in capsys.readouterr().err


def test_an_existing_dataset_is_refused_unless_overwritten(source, raw, capsys):
    convert(source)
    target = raw / "Dataset027_ACDC"
    (target / "mark").touch()
    with pytest.raises(SystemExit):
        convert(source)
    assert "--overwrite" in capsys.readouterr().err
    assert (target / "mark").exists()
    frame(source).write_bytes(b"")
    with pytest.raises(SystemExit):
        convert(source, "--overwrite")
    assert (target / "mark").exists()  # a failed replacement leaves the dataset that was there
    shutil.rmtree(patient(source))
    convert(source, "--overwrite")
    assert not (target / "mark").exists()
    assert names_in(raw) == ["Dataset027_ACDC"]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_an_id_taken_by_another_dataset_is_refused(variable, source, raw, tmp_path, monkeypatch, capsys):
    """nnU-Net looks for an id in all its folders and stops where it finds two names."""
    folder = raw if variable == "nnUNet_raw" else tmp_path / variable
    monkeypatch.setenv(variable, str(folder))
    (folder / "Dataset027_Other").mkdir(parents=True)
    with pytest.raises(SystemExit):
        convert(source)
    assert "Dataset027_Other" in capsys.readouterr().err


def test_an_unset_variable_and_an_unwritable_target_are_named(source, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        convert(source)
    assert "nnUNet_raw is not set" in capsys.readouterr().err
    (tmp_path / "file").touch()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file" / "raw"))
    with pytest.raises(SystemExit):
        convert(source)
    assert "can't be written" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(source, raw, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunetv2_levit.dataset_conversion.raw_dataset.write_image", full)
    with pytest.raises(SystemExit) as stop:
        convert(source)
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    assert names_in(raw) == []


def test_a_killed_conversion_leaves_no_dataset_and_the_next_one_clears_up(source, raw):
    script = (
        "import time, sys\n"
        "from nnunetv2_levit import cli\n"
        "from nnunetv2_levit.dataset_conversion import raw_dataset\n"
        "write = raw_dataset.write_image\n"
        "raw_dataset.write_image = lambda *a: (write(*a), print('written', flush=True), time.sleep(60))\n"
        "cli.main(['convert', 'acdc', '-i', sys.argv[1], '-d', '27'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline().startswith(b"written")
    process.kill()
    process.wait()
    (left_over,) = names_in(raw)
    assert left_over.startswith(".Dataset027_ACDC.partial-")  # hidden: nnU-Net doesn't take it for a dataset
    convert(source)
    assert names_in(raw) == ["Dataset027_ACDC"]


def test_left_overs_of_this_machine_go_and_those_of_others_stay(tmp_path):
    """In containers a process has the number of an earlier one; another machine's may be running."""
    ours, other = f"{platform.node()}-{os.getpid()}-0", f"elsewhere-{os.getpid()}-0"
    for name in (f".D.partial-{ours}", f".D.partial-{other}", f".D.previous-{ours}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".D.previous-{ours}" / "kept").touch()  # killed between the two renames
    with (
        pytest.raises(UserError, match="D exists already"),
        replaced_at_the_end(tmp_path / "D", overwrite=False, advice="remove it"),
    ):
        pass
    assert (tmp_path / "D" / "kept").is_file()
    with replaced_at_the_end(tmp_path / "D", overwrite=True, advice="remove it"):
        pass
    assert set(names_in(tmp_path)) == {f".D.partial-{other}", "D"}
    assert names_in(tmp_path / "D") == []


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    def write():
        with replaced_at_the_end(tmp_path / "D", overwrite=False, advice="remove it"):
            (tmp_path / "D").mkdir()
            (tmp_path / "D" / "theirs").touch()

    with pytest.raises(UserError, match="D exists already"):
        write()
    assert names_in(tmp_path) == ["D"]
    assert names_in(tmp_path / "D") == ["theirs"]


def test_a_note_warns_of_other_splits_that_nnunet_already_preprocessed(source, raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    folder = tmp_path / "preprocessed" / "Dataset027_ACDC"
    folder.mkdir(parents=True)
    (folder / "splits_final.json").write_text("[]")
    convert(source)
    assert str(folder / "splits_final.json") in capsys.readouterr().out
    convert(source, "--splits", "none", "--overwrite")
    assert str(folder / "splits_final.json") in capsys.readouterr().out


def test_phantom_is_reproducible_and_has_the_releases_header_quirk(phantom, tmp_path):
    again = write_phantom(tmp_path, patients=2, size=40, slices=2)
    for path in again.rglob("*.nii.gz"):
        original = nibabel.load(phantom / path.relative_to(again))
        np.testing.assert_array_equal(np.asanyarray(nibabel.load(path).dataobj), np.asanyarray(original.dataobj))
        np.testing.assert_allclose(np.linalg.norm(original.affine[:3, :3], axis=0), 1)
        np.testing.assert_allclose(original.header["pixdim"][1:4], (1.6, 1.6, 10))
        assert int(original.header["sform_code"]) == 2


@pytest.mark.slow
def test_the_real_patients(real_acdc, raw):
    start = time.perf_counter()
    convert(real_acdc)
    print(f"converted in {time.perf_counter() - start:.1f} s")
    target = raw / "Dataset027_ACDC"
    assert_all_converted(real_acdc / "training", target, 160)
    folds = json.loads((target / "splits_final.json").read_text())
    cases = {case.patient: case.group for case in acdc.find_cases(real_acdc)}
    # 074 and 076 have the same images with different labels: one patient as far as folds are concerned
    assert json.loads((target / "conversion.json").read_text())["same_images"] == [
        [f"patient074_frame{frame}", f"patient076_frame{frame}"] for frame in ("01", "12")
    ]
    for fold in folds:
        patients = sorted({case.split("_")[0] for case in fold["val"]})
        assert ("patient074" in patients) == ("patient076" in patients)
        groups = [cases[p] for p in patients]
        assert {groups.count(g) for g in set(groups)} <= {3, 4, 5}
        assert {15 <= len(patients) <= 17, len(fold["val"]) == 2 * len(patients)} == {True}


def test_the_untouched_header_of_the_release(real_acdc, tmp_path):
    from nnunetv2_levit.dataset_conversion.nifti import read_nifti, write_image

    original = real_acdc / "original_header_patient019_frame01.nii.gz"
    volume = read_nifti(original)
    write_image(volume, volume.affine, tmp_path / "out.nii.gz")
    assert_same_voxels(original, tmp_path / "out.nii.gz")
