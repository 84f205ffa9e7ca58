"""Faults of `nnunetv2_levit study`: one sentence each, exit code 2, and nothing written."""

import json
import shutil
from types import SimpleNamespace

import pytest

from nnunetv2_levit.study import check
from tests.study.conftest import DATASET, nnunet, study_file  # noqa: F401 (fixtures)
from tests.support.faults import assert_refused, run, snapshot

OURS = '"LeViTUNetTrainer_128s", "UNet2022Trainer"'


def replaced(old, new):
    def damage(file):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return damage


def added(text):
    return lambda file: file.write_text(file.read_text() + text)


def removed(path):
    def damage(file):
        target = file.parent / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def splits_of_six_lines(file):
    (file.parent / "preprocessed" / DATASET / "splits_final.json").write_text('[{"train": [')


def no_configurations(file):
    plans = file.parent / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans.write_text(json.dumps({**json.loads(plans.read_text()), "configurations": {}}))


FAULTS = {
    "no file": (lambda file: file.unlink(), ["study.toml", "study init"]),
    "not TOML": (added("\n= 3"), ["study.toml", "not TOML"]),
    "not text": (lambda file: file.write_bytes(b"\xff\xfe\x00"), ["study.toml", "can't be read"]),
    "an unknown table": (added("\n[slrum]\n"), ["[slrum]", "slurm"]),
    "an unknown key": (replaced("folds =", "fold ="), ["unknown key fold", "folds"]),
    "no trainers": (replaced(f"trainers = [{OURS}]", ""), ["trainers", "list"]),
    "trainers of the wrong type": (replaced(f"[{OURS}]", '"nnUNetTrainer"'), ["trainers", "list of texts"]),
    "an unknown trainer": (replaced(OURS, '"MyTrainer"'), ["MyTrainer", "nnUNet_extTrainer"]),
    "a misspelt trainer": (replaced("_128s", "_129s"), ["'129s'", "128s"]),
    "a trainer twice": (replaced("UNet2022Trainer", "LeViTUNetTrainer_128s"), ["LeViTUNetTrainer_128s", "twice"]),
    "a path for a trainer": (replaced("UNet2022Trainer", "../UNet"), ["'../UNet'", "no name"]),
    "a foreign reference": (replaced("folds =", 'reference = "Other"\nfolds ='), ["'Other'", "reference"]),
    "a negative seed": (replaced("seeds = [0, 1]", "seeds = [-1]"), ["seeds", "-1"]),
    "a missing dataset": (replaced("dataset = 27", "dataset = 28"), ["no dataset with id 28", "preprocess"]),
    "a dataset of the wrong type": (replaced("dataset = 27", "dataset = 2.5"), ["dataset", "2.5"]),
    "missing plans": (replaced("seeds =", 'plans = "Other"\nseeds ='), ["Other.json", "nnUNetv2_plan_and_preprocess"]),
    "empty plans": (no_configurations, ["nnUNetPlans.json", "configurations", "plan the dataset anew"]),
    "a missing configuration": (replaced("seeds =", 'configurations = ["2d_x"]\nseeds ='), ["2d_x", "3d_fullres"]),
    "a 3D configuration for our trainers": (
        replaced("seeds =", 'configurations = ["3d_fullres"]\nseeds ='),
        ["3d_fullres", "2D"],
    ),
    "nothing preprocessed": (
        removed(f"preprocessed/{DATASET}/nnUNetPlans_2d"),
        ["nnUNetPlans_2d", "nnUNetv2_preprocess"],
    ),
    "folds beyond the splits": (replaced("folds = [0, 1]", "folds = [0, 5]"), ["fold 5", "2"]),
    "broken splits": (splits_of_six_lines, ["splits_final.json"]),
    "missing test images": (removed("imagesTs"), ["imagesTs", "not a folder"]),
    "test images of another kind": (
        lambda file: [path.rename(path.with_suffix(".png")) for path in (file.parent / "imagesTs").iterdir()],
        ["imagesTs", "_0000.nii.gz"],
    ),
    "a missing test label": (removed("labelsTs/patient008_frame01.nii.gz"), ["patient008_frame01"]),
    "labels without images": (replaced('images = "imagesTs"', ""), ["labels", "images"]),
    "more parts than images": (added("[prediction]\nparts = 4\n"), ["parts is 4", "3 images"]),
    "an impossible step": (added("[prediction]\nstep_size = 0\n"), ["step_size", "0"]),
    "text for a number": (added('[prediction]\nparts = "two"\n'), ["parts", "whole number", "'two'"]),
    "an unknown metric": (added('[evaluation]\nmetrics = ["auc"]\n'), ["'auc'", "hd95"]),
    "an unknown protocol": (added('[evaluation]\nprotocol = "mine"\n'), ["'mine'", "levit-unet"]),
    "a protocol without its probabilities": (
        added('[evaluation]\nprotocol = "unet2022-em"\n'),
        ["unet2022-em", "save_probabilities"],
    ),
    "an endless tolerance": (added("[evaluation]\ntolerance = inf\n"), ["tolerance", "inf"]),
    "endless memory": (added("[slurm]\nmemory_gb = inf\n"), ["memory_gb", "inf"]),
    "endless epochs": (added("[slurm]\nseconds_per_epoch = inf\n"), ["seconds_per_epoch", "inf"]),
    "a name of no trainer": (added('[names]\nUNet = "U-Net"\n'), ["names UNet", "UNet2022Trainer"]),
    "two trainers of one name": (
        added('[names]\nUNet2022Trainer = "hybrid"\nLeViTUNetTrainer_128s = "hybrid"\n'),
        ["two trainers 'hybrid'"],
    ),
    "an unknown executor": (added('[executor]\nkind = "lsf"\n'), ["'lsf'", "local, slurm, print"]),
    "an impossible device": (replaced('["cpu", "cpu"]', '["gpu1"]'), ["'gpu1'", "cuda:0"]),
    "a device that is not there": (replaced('["cpu", "cpu"]', '["cuda:77"]'), ["cuda:77", "CUDA devices"]),
    "results elsewhere": (added('[environment]\nnnUNet_results = "x"\n'), ["nnUNet_results", "results of its own"]),
    "a folder that is a file": (replaced('folder = "out"', 'folder = "study.toml"'), ["study.toml", "is a file"]),
    "a folder within a file": (
        replaced('folder = "out"', 'folder = "study.toml/out"'),
        ["study.toml", "can't be"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_file_or_its_data_is_one_sentence_before_anything_starts(
    capsys,
    study_file,  # noqa: F811
    nnunet,  # noqa: F811
    fault,
):
    damage, words = FAULTS[fault]
    damage(study_file)
    before = snapshot(nnunet)
    assert_refused(run(capsys, "study", study_file, "run"), *words)
    assert snapshot(nnunet) == before


def test_too_little_room_is_said_before_anything_starts(capsys, study_file, nnunet, monkeypatch):  # noqa: F811
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    monkeypatch.setattr(check, "_facts", lambda study, model: check.ModelFacts(16_000_000, 1000))
    before = snapshot(nnunet)
    assert_refused(run(capsys, "study", study_file, "run"), "4.6 GB", "1.0 GB", str(nnunet / "out"))
    assert snapshot(nnunet) == before


COMMANDS = {
    "no action": (["{file}"], ["plan, run, status, report, cancel"]),
    "init without a dataset": (["init"], ["-d"]),
    "init of a missing dataset": (["init", "-d", "5"], ["id 5"]),
    "init over a file": (["init", "-d", "27", "-o", "{file}"], ["study.toml", "exists already"]),
    "no waiting time": (["{file}", "status", "--watch", "-1"], ["--watch -1", "seconds"]),
    "a waiting time that is no number": (["{file}", "status", "--watch", "nan"], ["--watch nan", "seconds"]),
    "a report of nothing": (["{file}", "report"], ["no model", "status"]),
    "slurm without sbatch": (["{file}", "run", "--executor", "slurm"], ["no sbatch", "local"]),
}


@pytest.mark.parametrize("fault", COMMANDS)
def test_a_fault_of_the_command_is_one_sentence(capsys, study_file, nnunet, monkeypatch, fault):  # noqa: F811
    words, expected = COMMANDS[fault]
    monkeypatch.setattr(check, "_facts", lambda study, model: check.ModelFacts(1000, 2))
    if "slurm" in fault:
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", "/nonexistent")
    before = snapshot(nnunet)
    assert_refused(run(capsys, "study", *(word.format(file=study_file) for word in words)), *expected)
    assert snapshot(nnunet) == before


def test_without_nnunets_folders_the_variable_is_named(capsys, study_file, monkeypatch):  # noqa: F811
    monkeypatch.delenv("nnUNet_preprocessed")
    assert_refused(run(capsys, "study", study_file, "status"), "nnUNet_preprocessed")
