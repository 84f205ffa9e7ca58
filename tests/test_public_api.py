"""The public functions as a notebook uses them: data come back, nothing is printed, bad input is an exception."""

from pathlib import Path

import numpy as np
import pytest

import nnunetv2_levit as levit
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from tests.inference.model_folders import write_case, write_model_folder

ON_THE_CPU = {"device": "cpu", "folds": (0,), "preprocessing_workers": 0, "exporting_workers": 0}


@pytest.fixture
def silent(capfd):
    """Nothing is printed from here to the end of the test, by this process or another."""
    capfd.readouterr()
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("trained") / "model", folds=(0,), patch_size=(32, 32))


def test_from_data_to_a_comparison(tmp_path, monkeypatch, silent):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    source = write_phantom(tmp_path / "source", patients=5, size=40, slices=2)
    done = levit.convert("acdc", source=str(source), dataset_id=7)
    assert done.folder == tmp_path / "raw" / "Dataset007_ACDC"
    assert "10 training cases were found, 200 are published" in done.notes
    labels = str(done.folder / "labelsTr")
    result = levit.evaluate(predictions=labels, truth=labels, dataset=done.folder)
    assert result["mean"]["dice"]["mean"] == 1
    assert not (done.folder / "labelsTr" / "evaluation").exists()
    levit.evaluate(predictions=labels, truth=labels, dataset=str(done.folder), output=tmp_path / "evaluation")
    comparison = levit.compare({"memory": result, "file": tmp_path / "evaluation"}, output=tmp_path / "compared")
    assert {row["mean"] for row in comparison["comparisons"] if row["metric"] == "dice"} == {0}
    assert (tmp_path / "compared" / "comparison.json").is_file()


def test_prediction_returns_the_files_of_the_cases(model, tmp_path, silent):
    for seed, name in enumerate("abc"):
        write_case(tmp_path / "images", name, np.random.default_rng(seed).random((2, 30, 30)) * 200)
    files = levit.predict(model=str(model), images=tmp_path / "images", output=str(tmp_path / "out"), **ON_THE_CPU)
    assert files == [tmp_path / "out" / f"{name}.nii.gz" for name in "abc"]
    assert all(path.is_file() for path in files)
    second = {"parts": 2, "part": 1, "continue_prediction": True}
    part = levit.predict(model=model, images=tmp_path / "images", output=tmp_path / "out", **ON_THE_CPU, **second)
    assert part == files[1::2]


# a call, words of the sentence
REFUSED = {
    "convert, no such converter": (lambda: levit.convert("lungs", source="x", dataset_id=1), "no converter 'lungs'"),
    "create, no such network": (
        lambda: levit.create("unet", in_channels=1, num_classes=2, image_size=(64, 64)),
        "'unet' is not registered",
    ),
    "trainer_class, no such option": (
        lambda: levit.trainer_class("LeViTUNetTrainer_x"),
        "neither a size nor an option",
    ),
    "predict, no model": (lambda: levit.predict(images="x", output="y"), "predict needs a model"),
    "predict, two models": (lambda: levit.predict(model="x", dataset=1, images="x", output="y"), "by itself"),
    "evaluate, nothing": (lambda: levit.evaluate(), "give predictions and ground truth"),
    "evaluate, both": (lambda: levit.evaluate(model="x", predictions="y"), "give one of them"),
    "compare, one": (lambda: levit.compare({"a": "x"}), "at least two"),
    "attention, no model": (lambda: levit.attention("nothing here", images="x", output="new"), "nothing here"),
    "block_study, no model": (lambda: levit.block_study("nothing here", output="new"), "nothing here"),
    "class_activation, no method": (
        lambda: levit.class_activation("nothing here", images="x", output="new", method="magic"),
        "the method 'magic' is unknown",
    ),
    "truncate, no model": (lambda: levit.truncate("nothing here", blocks=1, output="new"), "nothing here"),
    "export, no model": (lambda: levit.export("nothing here", output="model.onnx"), "nothing here"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_exception(call, words, tmp_path, monkeypatch, silent):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(levit.UserError, match=words):
        call()
    assert not list(Path(tmp_path).iterdir())
