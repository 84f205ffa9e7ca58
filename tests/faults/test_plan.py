"""``plan``: what is refused before nnU-Net's planning starts, and words that are wrong for every subcommand."""

import json

import pytest

from tests.support.faults import assert_refused, run, snapshot
from tests.support.json_fuzz import DATASET, PLANS


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name / "Dataset027_ACDC").mkdir(parents=True)
    (tmp_path / "raw" / "Dataset027_ACDC" / "dataset.json").write_text(json.dumps(DATASET))
    (tmp_path / "preprocessed" / "Dataset027_ACDC" / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    return tmp_path / "raw" / "Dataset027_ACDC"


PLANNING = {
    "no dataset": (("-d", 99), "no dataset with id 99"),
    "an unknown configuration": (("-d", 27, "-c", "2d", "4d"), "no configuration '4d'"),
    "no processes": (("-d", 27, "-np", 0), "-np 0"),
    "too many processes": (("-d", 27, "-npfp", 99999999999), "-npfp 99999999999"),
    "processes for other configurations": (("-d", 27, "-np", 1, 2), "2 numbers for 1 configurations"),
    "no memory": (("-d", 27, "-gpu_memory_target", "nan"), "-gpu_memory_target nan"),
    "an endless spacing": (("-d", 27, "-overwrite_target_spacing", "inf", 1, 1), "-overwrite_target_spacing inf"),
    "a spacing of two": (("-d", 27, "-overwrite_target_spacing", 1, 1), "is not three lengths"),
    "plans elsewhere": (("-d", 27, "-overwrite_plans_name", "../x"), "'../x' is no name"),
    "an unknown planner": (("-d", 27, "-pl", "Planner"), "no class 'Planner' for -pl"),
    "an unknown extractor": (("-d", 27, "-fpe", "os.system"), "no class 'os.system' for -fpe"),
    "an unknown preprocessor": (("-d", 27, "-preprocessor_name", "a/b"), "no class 'a/b'"),
}


@pytest.mark.parametrize("fault", PLANNING)
def test_planning_is_refused(fault, dataset, tmp_path, capsys):
    flags, words = PLANNING[fault]
    before = snapshot(tmp_path)
    assert_refused(run(capsys, "plan", *flags), words)
    assert snapshot(tmp_path) == before


def test_a_broken_description_is_refused(dataset, capsys):
    (dataset / "dataset.json").write_text("[]")
    assert_refused(run(capsys, "plan", "-d", 27), "dataset.json", "description of a dataset")


@pytest.mark.parametrize("spacing", ["1 1 1"])
def test_what_is_right_gets_to_nnunet(spacing, dataset, monkeypatch):
    from nnunetv2_levit.cli.plan import check_arguments

    check_arguments(["-d", "27", "-c", "2d", "2d_small", "-pl", "nnUNetPlannerResEncM", "-np", "1", "2"])
    check_arguments(["-d", "27", "-overwrite_target_spacing", *spacing.split(), "-overwrite_plans_name", "mine"])


WORDS = {
    "an empty path": (("predict", "-m", "", "-i", "x", "-o", "y"), "the argument after -m is empty"),
    "an empty output": (("inspect", "-d", 27, "-o", " "), "the argument after -o is empty"),
    "an empty trainer": (("train", 27, "2d", 0, "-tr", ""), "the argument after -tr is empty"),
    "a name that is too long": (("curves", "x" * 300, "-o", "c.json"), "can't be used (File name too long)"),
    "a name of two lines": (("curves", "a\nerror: b", "-o", "c.json"), "a error: b holds no"),
    "a dataset elsewhere": (("train", "../raw/Dataset027_ACDC", "2d", 0, "-device", "cpu"), "holds no dataset"),
}


@pytest.mark.parametrize("fault", WORDS)
def test_words_are_refused(fault, dataset, tmp_path, monkeypatch, capsys):
    words, sentence = WORDS[fault]
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert_refused(run(capsys, *words), sentence)
    assert snapshot(tmp_path) == before
