"""Evaluating folders and trained-model folders, through the command line where its words matter."""

import json

import numpy as np
import pytest
from PIL import Image

from nnunetv2_levit.cli import main
from nnunetv2_levit.errors import EXIT_CODE
from nnunetv2_levit.evaluation import evaluate as module
from nnunetv2_levit.evaluation.evaluate import evaluate
from nnunetv2_levit.evaluation.label_files import patients_of
from nnunetv2_levit.evaluation.stored import load_evaluation
from tests.evaluation.conftest import heart, write_labels


def run(*arguments):
    main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == EXIT_CODE
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_a_folder_against_its_ground_truth(folders, capsys):
    run("evaluate", "-p", folders / "A", "-g", folders / "labelsTr", "--protocol", "levit-unet")
    printed = capsys.readouterr().out
    result = load_evaluation(folders / "A" / "evaluation")
    assert (len(result["cases"]), result["patients"], result["unit"], result["dimensions"]) == (6, 3, "mm", 3)
    rv = result["summary"]["RV"]
    assert rv["dice"]["mean"] == pytest.approx(0.75)
    assert rv["dice"]["ci95"] == pytest.approx([0.75, 0.75])
    assert rv["hd"]["mean"] == pytest.approx(1.5)  # one column, in mm
    assert rv["nsd"]["mean"] == 1.0
    assert result["protocol"]["structures"]["RV"]["hd95"] == pytest.approx(1.0)  # one column, in voxels
    assert "'HD' (voxels), protocol levit-unet" in printed
    assert "| RV | 75.00 ± 0.00" in printed
    lines = (folders / "A" / "evaluation" / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 3
    assert lines[1].startswith("patient001_frame01,patient001,,RV,both,0.75,")


def test_empty_structures_are_listed_never_hidden(folders, capsys):
    array = heart()
    array[array == 3] = 0
    write_labels(folders / "B" / "patient002_frame01.nii.gz", array)  # LV missed
    write_labels(folders / "labelsTr" / "patient003_frame01.nii.gz", array)  # LV spurious
    write_labels(folders / "labelsTr" / "patient003_frame12.nii.gz", array)
    write_labels(folders / "B" / "patient003_frame12.nii.gz", array)  # in neither
    run("evaluate", "-p", folders / "B", "-g", folders / "labelsTr", "--protocol", "transunet")
    result = load_evaluation(folders / "B" / "evaluation" / "evaluation.json")
    assert result["empty"]["LV"] == {
        "absent": ["patient003_frame12"],
        "missed": ["patient002_frame01"],
        "spurious": ["patient003_frame01"],
    }
    assert result["summary"]["LV"]["dice"]["n"] == 5
    assert result["summary"]["LV"]["hd95"]["n"] == 3
    printed = capsys.readouterr().out
    for kind, case in (("absent", "003_frame12"), ("missed", "002_frame01"), ("spurious", "003_frame01")):
        assert f"| LV | {kind} | 1 | patient{case} |" in printed
    assert "(n = 3)" in printed
    # what the paper's code makes of the same: 1 for the spurious one, 0 for the one in neither
    assert result["cases"][4]["protocol"]["LV"] == {"dice": 1.0, "hd95": 0.0}
    assert result["cases"][5]["protocol"]["LV"] == {"dice": 0.0, "hd95": 0.0}


def test_faulty_files_are_named_in_one_sentence(folders, capsys):
    truth, a = folders / "labelsTr", folders / "A"
    case = a / "patient001_frame12.nii.gz"
    content = case.read_bytes()
    case.unlink()
    assert "lacks the predictions of 1 cases" in (error := fails(capsys, "evaluate", "-p", a, "-g", truth))
    assert "patient001_frame12" in error
    run("evaluate", "-p", a, "-g", truth, "--partial")
    assert "5 of the 6 cases" in capsys.readouterr().out
    case.write_bytes(content)
    extra = a / "stranger.nii.gz"
    extra.write_bytes(content)
    assert "stranger" in fails(capsys, "evaluate", "-p", a, "-g", truth)
    extra.unlink()
    for change, word in (
        ({"spacing": (1.5, 1.5, 9.0)}, "spacing"),
        ({"origin": (0.0, 5.0, 0.0)}, "origin"),
    ):
        write_labels(case, heart(1), **change)
        assert f"its {word} is" in fails(capsys, "evaluate", "-p", a, "-g", truth)
    write_labels(case, heart(1)[:, :20])
    assert "its shape is (3, 20, 24)" in fails(capsys, "evaluate", "-p", a, "-g", truth)
    case.write_bytes(b"no image")
    reason = "patient001_frame12.nii.gz is truncated or damaged (it is no gzip file)"
    assert reason in fails(capsys, "evaluate", "-p", a, "-g", truth)


def test_wrong_requests_end_with_a_sentence(folders, capsys, tmp_path):
    truth, a = folders / "labelsTr", folders / "A"
    assert "choose one of" in fails(capsys, "evaluate", "-p", a, "-g", truth, "--protocol", "none")
    assert "is not a folder" in fails(capsys, "evaluate", "-p", tmp_path / "no", "-g", truth)
    assert "-p and -g" in fails(capsys, "evaluate", "-p", a)
    assert "tolerance" in fails(capsys, "evaluate", "-p", a, "-g", truth, "--tolerance", "-1")
    assert "save_probabilities" in fails(capsys, "evaluate", "-p", a, "-g", truth, "--protocol", "unet2022-em")
    (folders / "dataset.json").unlink()
    assert "give the dataset's id with -d" in fails(capsys, "evaluate", "-p", a, "-g", truth)


def test_several_processes_give_the_same(folders, monkeypatch):
    request = dict(predictions=folders / "A", truth=folders / "labelsTr", workers=1)
    alone = evaluate(**request)
    monkeypatch.setattr(module, "CASES_WORTH_A_PROCESS", 4)
    assert evaluate(**request | {"workers": 2}) == alone


def test_a_trained_model_folder_pools_its_folds(folders, monkeypatch, capsys):
    model = folders / "results" / "Dataset027_ACDC" / "LeViTUNetTrainer__nnUNetPlans__2d"
    preprocessed = folders / "preprocessed" / "Dataset027_ACDC"
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (folders / "labelsTr").iterdir())
    splits = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    for fold, split in enumerate(splits):
        for case in split["val"]:
            write_labels(model / f"fold_{fold}" / "validation" / f"{case}.nii.gz", heart(fold))
            write_labels(preprocessed / "gt_segmentations" / f"{case}.nii.gz", heart())
    write_labels(model / "fold_all" / "validation" / f"{cases[0]}.nii.gz", heart(5))
    (model / "dataset.json").write_text((folders / "dataset.json").read_text())
    (model / "plans.json").write_text(json.dumps({"dataset_name": "Dataset027_ACDC"}))
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    assert "give it with -g" in fails(capsys, "evaluate", "-m", model)
    monkeypatch.setenv("nnUNet_preprocessed", str(folders / "preprocessed"))
    result = evaluate(model=model)
    assert [entry["fold"] for entry in result["cases"]] == ["fold_0"] * 2 + ["fold_1"] * 4
    assert [entry["metrics"]["RV"]["dice"] for entry in result["cases"]] == pytest.approx([1.0] * 2 + [0.75] * 4)
    assert evaluate(model=model, folds=(1,))["split"] == "validation of fold_1, pooled"
    (model / "fold_1" / "validation" / f"{cases[3]}.nii.gz").unlink()
    assert f"lacks 1 validation cases: {cases[3]}" in fails(capsys, "evaluate", "-m", model)
    assert "fold_4" in fails(capsys, "evaluate", "-m", model, "-f", 4)
    # predicted when the folds were others: it may be a training case of this one
    write_labels(model / "fold_0" / "validation" / f"{cases[3]}.nii.gz", heart())
    assert f"not in this fold's validation: {cases[3]}" in fails(capsys, "evaluate", "-m", model, "-f", 0)


def test_regions_and_an_ignore_label(tmp_path):
    truth, prediction = heart(), heart(1)
    truth[:, 8:18, 3:8] = 4  # where the RV and its shifted copy differ is not judged
    for case in ("one", "two"):
        write_labels(tmp_path / "labelsTr" / f"{case}.nii.gz", truth)
        write_labels(tmp_path / "P" / f"{case}.nii.gz", prediction)
    labels = {"background": 0, "heart": [1, 2, 3], "left": [2, 3], "ignore": 4}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    result = evaluate(predictions=tmp_path / "P", truth=tmp_path / "labelsTr")
    assert result["ignore_label"] == 4
    # the RV is all ignored: both regions are the left ventricle with its wall, 10 columns of 12 x 3, one column off
    for region in ("heart", "left"):
        assert result["summary"][region]["dice"]["mean"] == pytest.approx(0.9)


def test_pictures_are_measured_in_pixels_and_with_probabilities(tmp_path):
    truth = np.zeros((40, 30), dtype=np.uint8)
    truth[10:20, 10:20] = 1
    for case in ("a", "b"):
        for folder, array in (("labelsTr", truth), ("P", np.roll(truth, 1, 0))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{case}.png")
        foreground = np.roll(truth, 1, 0)[None] * 0.72
        np.savez_compressed(tmp_path / "P" / f"{case}.npz", probabilities=np.stack([1 - foreground, foreground]))
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "cell": 1}, "file_ending": ".png", "name": "ISBI2012"})
    )
    request = dict(predictions=tmp_path / "P", truth=tmp_path / "labelsTr", protocol="unet2022-em")
    result = evaluate(**request)
    assert (result["unit"], result["dimensions"]) == ("px", 2)
    assert result["summary"]["cell"]["hd"]["mean"] == 1.0
    assert result["protocol"]["mean"]["miou"] == pytest.approx(0.5 * 90 / 110)


def test_what_the_ground_truth_ignores_counts_for_no_protocol(tmp_path):
    truth = np.zeros((40, 30), dtype=np.uint8)
    truth[10:20, 10:20] = 1
    ignored = truth.copy()
    ignored[:, 15:] = 2
    for folder, array in (("labelsTr", ignored), ("P", truth)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    np.savez_compressed(tmp_path / "P" / "a.npz", probabilities=np.stack([1.0 - truth, truth])[:, None])
    labels = {"background": 0, "cell": 1, "ignore": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".png", "name": "ISBI2012"}))
    for protocol, column in (("unet2022-em", "miou"), ("polyp", "mdice")):
        result = evaluate(predictions=tmp_path / "P", truth=tmp_path / "labelsTr", protocol=protocol)
        assert result["protocol"]["mean"][column] == pytest.approx(1.0, abs=0.005)  # PraNet's threshold 0 is everything


def test_a_single_slice_among_volumes_has_no_volume(folders, capsys):
    case = "patient001_frame01"
    for folder, array in (("labelsTr", heart()), ("A", heart(1))):
        write_labels(folders / folder / f"{case}.nii.gz", array[:1])
    request = dict(predictions=folders / "A", truth=folders / "labelsTr")
    result = evaluate(**request)
    assert (result["dimensions"], result["summary"]["RV"]["volume_difference"]["n"]) == (3, 5)
    assert result["summary"]["RV"]["dice"]["n"] == 6
    words = ("evaluate", "-p", folders / "A", "-g", folders / "labelsTr", "--protocol", "transunet")
    assert "is for volumes" in fails(capsys, *words)


def test_a_2d_file_of_1_mm_pixels_is_no_picture(tmp_path):
    for folder in ("labelsTr", "P"):
        write_labels(tmp_path / folder / "a.nii.gz", heart()[0], spacing=(1.0, 1.0), origin=(0.0, 0.0))
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    assert evaluate(predictions=tmp_path / "P", truth=tmp_path / "labelsTr")["unit"] == "mm"


def test_whose_a_case_is(tmp_path, monkeypatch):
    names = ["patient001_frame01", "patient001_ES", "case7_slice012", "alone"]
    assert list(patients_of(names, None).values()) == ["patient001", "patient001", "case7", "alone"]
    raw, preprocessed = tmp_path / "raw" / "Dataset001_A", tmp_path / "preprocessed" / "Dataset001_A"
    raw.mkdir(parents=True)
    (raw / "conversion.json").write_text(json.dumps({"cases": {"alone": {"patient": "patient001"}}}))
    assert patients_of(names, raw)["alone"] == "patient001"
    assert patients_of(names, preprocessed)["alone"] == "alone"
    # `evaluate -m` takes its ground truth from the preprocessed dataset, where no converter's summary is
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert patients_of(names, preprocessed)["alone"] == "patient001"
    assert patients_of(["p1x", "p2x"], None, r"(p\d)") == {"p1x": "p1", "p2x": "p2"}
