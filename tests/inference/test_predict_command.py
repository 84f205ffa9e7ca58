"""``nnunetv2_levit predict``: what fails, what goes on, what a second run does, and the exit codes."""

import json
import os
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image

from nnunetv2_levit import cli
from nnunetv2_levit.inference import pipeline
from nnunetv2_levit.inference.predict_folder import _threads_for
from tests.inference.model_folders import write_case, write_model_folder

HERE = ("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")
NAMES = ("a", "b", "c")


def volume(seed):
    return np.random.default_rng(seed).random((2, 30, 30)) * 200


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("trained") / "model", folds=(0,), patch_size=(32, 32))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for seed, name in enumerate(NAMES):
        write_case(folder, name, volume(seed))
    return folder


def predict(model, images, out, *flags, where=HERE):
    """Exit code of the command in this process."""
    try:
        cli.main(["predict", "-m", str(model), "-i", str(images), "-o", str(out), "-f", "0", *where, *flags])
    except SystemExit as stop:
        return stop.code
    return 0


def segmentations(out):
    return {
        path.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        for path in out.glob("*.nii.gz")
    }


def test_an_unreadable_case_is_named_and_a_second_run_does_only_what_is_missing(model, images, tmp_path, capsys):
    broken, out = images / "b_0000.nii.gz", tmp_path / "out"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-200])  # ITK reads it as if its last slice were zeros
    assert predict(model, images, out) == 1
    said = capsys.readouterr().err
    assert "error: b was not predicted" in said
    assert "b_0000.nii.gz is truncated" in said
    assert "1 of 3 cases were not predicted: b" in said
    assert set(segmentations(out)) == {"a", "c"}
    assert not list(out.glob(".*"))

    broken.write_bytes(whole)
    (out / ".b.partial").mkdir()  # what a killed process leaves
    (out / ".b.partial" / "b.nii.gz").touch()
    before = {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in "ac"}
    assert predict(model, images, out, "--continue_prediction") == 0
    assert set(segmentations(out)) == set(NAMES)
    assert before == {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in "ac"}
    assert not list(out.glob(".*"))
    # without probabilities a case is not complete for who asks for them
    assert predict(model, images, out, "--continue_prediction", "--save_probabilities") == 0
    assert {path.stem for path in out.glob("*.npz")} == set(NAMES)
    assert json.loads((out / "dataset.json").read_text())["file_ending"] == ".nii.gz"


def test_nan_logits_are_an_error_that_names_the_case_and_not_background(model, images, tmp_path, capsys, monkeypatch):
    preprocess = pipeline.Preparation.preprocess

    def with_nan(self, case):  # SimpleITK reads NaN as 0; a normalisation can still make one
        data, properties = preprocess(self, case)
        data[0, 0, 3, 3] = np.nan if case.name == "b" else 0
        return data, properties

    monkeypatch.setattr(pipeline.Preparation, "preprocess", with_nan)
    assert predict(model, images, tmp_path / "out") == 1
    assert "error: b was not predicted: its logits are NaN" in capsys.readouterr().err
    assert set(segmentations(tmp_path / "out")) == {"a", "c"}

    monkeypatch.undo()
    diverged = write_model_folder(tmp_path / "model", folds=(0, 1), patch_size=(32, 32), poison=(1,))
    assert predict(diverged, images, tmp_path / "none", "-f", "0", "1") == 1
    said = capsys.readouterr().err
    assert all(f"error: {name} was not predicted: its logits are NaN" in said for name in NAMES)
    assert not segmentations(tmp_path / "none")


def test_worker_processes_and_parts_give_the_same(model, images, tmp_path):
    assert predict(model, images, tmp_path / "here") == 0
    workers = ("-device", "cpu", "-npp", "2", "-nps", "1")
    for part in ("0", "1"):
        assert predict(model, images, tmp_path / "parts", "-num_parts", "2", "-part_id", part, where=workers) == 0
        assert set(segmentations(tmp_path / "parts")) == ({"a", "c"} if part == "0" else set(NAMES))
    expected, found = segmentations(tmp_path / "here"), segmentations(tmp_path / "parts")
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.skipif(sys.platform != "linux", reason="the change below reaches forked processes only")
def test_a_worker_that_dies_is_reported(model, images, tmp_path, capsys, monkeypatch):
    preprocess = pipeline.Preparation.preprocess
    monkeypatch.setattr(
        pipeline.Preparation,
        "preprocess",
        lambda self, case: os._exit(9) if case.name == "c" else preprocess(self, case),
    )
    assert predict(model, images, tmp_path / "out", where=("-device", "cpu", "-npp", "1", "-nps", "0")) == 1
    said = capsys.readouterr().err
    assert "c was not predicted: a worker process died" in said
    assert "c" not in segmentations(tmp_path / "out")


def test_a_write_that_fails_leaves_nothing_half_done(model, images, tmp_path, capsys, monkeypatch):
    export = pipeline.export_prediction_from_logits

    def full_disk(logits, properties, configuration, plans, dataset, target, *args, **kwargs):
        export(logits, properties, configuration, plans, dataset, target, *args, **kwargs)
        if target.endswith("b"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "export_prediction_from_logits", full_disk)
    assert predict(model, images, tmp_path / "out") == 1
    assert "b was not predicted" in capsys.readouterr().err
    assert set(segmentations(tmp_path / "out")) == {"a", "c"}
    assert not list((tmp_path / "out").glob(".*"))


def test_a_3d_configuration_is_predicted_by_nnunet_itself(tmp_path, capsys):
    model = write_model_folder(tmp_path / "model", folds=(0,), patch_size=(4, 16, 16), mirror_axes=(0, 1, 2))
    images = tmp_path / "images"
    write_case(images, "a", volume(0), spacing=1.5)
    assert predict(model, images, tmp_path / "ours") == 0
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0,))
    (tmp_path / "theirs").mkdir()
    stock.predict_from_files_sequential(str(images), str(tmp_path / "theirs"))
    expected = segmentations(tmp_path / "theirs")["a"]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(segmentations(tmp_path / "ours")["a"], expected)
    write_case(images, "b", volume(1), spacing=1.5)
    assert predict(model, images, tmp_path / "part", "-num_parts", "2", "-part_id", "1") == 0
    assert set(segmentations(tmp_path / "part")) == {"b"}
    workers = ("-device", "cpu", "-npp", "1", "-nps", "0")
    assert predict(model, images, tmp_path / "x", where=workers) == 2
    assert "both -npp 0 and -nps 0" in capsys.readouterr().err


def test_pictures_whose_three_channels_are_one_file(tmp_path, capsys):
    model = write_model_folder(
        tmp_path / "model",
        folds=(0,),
        patch_size=(32, 32),
        channels=3,
        labels={"background": 0, "polyp": 1},
        reader="NaturalImage2DIO",
        file_ending=".png",
    )
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for name in NAMES:
        Image.fromarray(pixels).save(images / f"{name}_0000.png")
    assert predict(model, images, out) == 0
    assert {path.name for path in out.glob("*.png")} == {f"{name}.png" for name in NAMES}
    assert Image.open(out / "a.png").size == (50, 40)
    Image.fromarray(pixels[..., 0]).save(images / "a_0000.png")
    assert predict(model, images, out) == 2
    assert "the case a has the channel files _0000, and the model needs _0000, _0001, _0002" in capsys.readouterr().err


def test_a_picture_with_more_channels_than_the_model_is_named(tmp_path, capsys):
    model = write_model_folder(
        tmp_path / "model", folds=(0,), patch_size=(32, 32), reader="NaturalImage2DIO", file_ending=".png"
    )
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for name in NAMES:
        Image.fromarray(pixels if name == "b" else pixels[..., 0]).save(images / f"{name}_0000.png")
    assert predict(model, images, out) == 1
    assert {path.name for path in out.glob("*.png")} == {"a.png", "c.png"}
    assert "it has 3 channels, and the network takes 1" in capsys.readouterr().err


def _no_model(model, images, out):
    return {"model": model / "absent"}, "there is no model folder"


def _not_a_model(model, images, out):
    return {"model": images}, "it should be part of a trained nnU-Net model"


def _no_fold(model, images, out):
    return {"flags": ("-f", "0", "3")}, "has no checkpoint_final.pth for fold 3: choose with -f among 0"


def _no_checkpoint(model, images, out):
    return {"flags": ("-chk", "checkpoint_best.pth")}, "fold 0 has checkpoint_final.pth (-chk)"


def _broken_checkpoint(model, images, out):
    (model / "fold_0" / "checkpoint_best.pth").write_bytes(b"not a checkpoint")
    return {"flags": ("-chk", "checkpoint_best.pth")}, "can't be loaded"


def _no_folder(model, images, out):
    return {"images": images / "absent"}, "there is no input folder"


def _no_images(model, images, out):
    return {"images": model}, "must end in _0000.nii.gz"


def _channel_too_many(model, images, out):
    (images / "b_0001.nii.gz").touch()
    return {}, "the case b has the channel files _0000, _0001, and the model needs _0000"


def _output_is_a_file(model, images, out):
    out.touch()
    return {}, "is a file"


def _part(model, images, out):
    return {"flags": ("-num_parts", "2", "-part_id", "2")}, "part 2 of 2 does not exist"


def _step(model, images, out):
    return {"flags": ("-step_size", "1.5")}, "step size 1.5"


def _both(model, images, out):
    return {"flags": ("-d", "27", "-c", "2d")}, "leave out -d and -c, or -m"


@pytest.mark.parametrize(
    "fault",
    [
        *(_no_model, _not_a_model, _no_fold, _no_checkpoint, _broken_checkpoint, _no_folder, _no_images),
        *(_channel_too_many, _output_is_a_file, _part, _step, _both),
    ],
)
def test_what_can_not_work_is_one_sentence_and_exit_code_2(fault, model, images, tmp_path, capsys):
    out = tmp_path / "out"
    changed, sentence = fault(model, images, out)
    code = predict(changed.get("model", model), changed.get("images", images), out, *changed.get("flags", ()))
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not out.is_dir() or not list(out.glob("*.nii.gz"))


def test_an_output_folder_that_can_not_be_written_is_one_sentence(model, images, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    # by the answer, not by permissions: they do not bind root, who often runs tests
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert predict(model, images, out) == 2
    assert "can't be written" in capsys.readouterr().err


def test_a_model_is_found_by_dataset_trainer_plans_and_configuration(model, images, tmp_path, capsys, monkeypatch):
    results = tmp_path / "results"
    folder = results / "Dataset027_ACDC" / "nnUNetTrainer__nnUNetPlans__2d"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(model, target_is_directory=True)
    monkeypatch.setenv("nnUNet_results", str(results))
    common = ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-f", "0", *HERE]
    for flags in (("-d", "27", "-c", "2d"), ("-d", "Dataset027_ACDC", "-c", "2d", "-num_parts", "3")):
        cli.main([*common, *flags])
    assert set(segmentations(tmp_path / "out")) == set(NAMES)
    for flags, sentence in (
        (("-d", "28", "-c", "2d"), "no dataset with id 28"),
        (("-d", "27", "-c", "2d", "-tr", "Other"), "trained are nnUNetTrainer__nnUNetPlans__2d"),
        (("-d", "27"), "needs a model"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([*common, *flags])
        assert stop.value.code == 2
        assert sentence in capsys.readouterr().err


def test_a_caller_gets_torchs_threads_and_cudnns_autotuning_back(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    autotuning = torch.backends.cudnn.benchmark
    with _threads_for("cuda"):
        torch.backends.cudnn.benchmark = not autotuning
    assert asked == [1, torch.get_num_threads()]
    assert torch.backends.cudnn.benchmark == autotuning
