"""The pocket benchmark of docs/lab/experiments: what a budget holds, which folds may be looked at, what is reported."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nnunetv2_levit import __version__
from nnunetv2_levit.trainers.naming import check_canonical, family_of

EXPERIMENTS = Path(__file__).resolve().parents[1] / "docs" / "lab" / "experiments"


@pytest.fixture
def script(monkeypatch):
    """Function from a script's name to its module; the scripts import one another."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module


@pytest.fixture
def benchmark(script):
    return script("pocket_benchmark")


@pytest.mark.parametrize("iterations", [1, 39, 40, 41, 79, 500, 1387, 2500, 99_999])
def test_a_training_is_as_long_as_its_budget_and_never_longer(benchmark, iterations):
    epochs, per_epoch = benchmark.fitted(iterations)
    assert epochs >= 1
    assert per_epoch <= 60
    assert epochs * per_epoch <= iterations
    if iterations > 500:
        assert epochs * per_epoch > 0.99 * iterations


@pytest.mark.parametrize(("fold", "final"), [(0, False), (3, False), (1, True), (2, True)])
def test_no_choice_sees_the_folds_of_the_report_and_the_other_way_round(benchmark, fold, final):
    with pytest.raises(SystemExit, match=f"fold {fold}"):
        benchmark.check_fold(fold, final=final)
    benchmark.check_fold(fold, final=not final)


def test_a_run_says_what_it_was_measured_with_also_where_nothing_is_installed(script, monkeypatch):
    """On a lent GPU the packages lie in folders of PYTHONPATH."""

    def not_found(name):
        raise PackageNotFoundError(name)

    prepare = script("pocket_prepare")
    monkeypatch.setattr(prepare, "version", not_found)
    assert prepare.circumstances("cpu")["versions"] == {"torch": None, "nnunetv2": None, "nnunetv2_levit": __version__}


def test_programs_start_without_a_script_beside_python(script, monkeypatch):
    program = script("commands").program
    assert "plan_and_preprocess_entrypoints" in program("nnUNetv2_plan_and_preprocess", "-d", 27)[2]
    done = subprocess.run(program("nnunetv2_levit", "--version"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout
    monkeypatch.setattr(sys, "argv", ["/here/networks_speed.py", "DATA", "--batch", "1", "-o", "/tmp/out.json"])
    line = script("commands").command_line({"DATA": "ACDC_FOLDER"})
    assert line == "python docs/lab/experiments/networks_speed.py ACDC_FOLDER --batch 1"


def row(trainer, fold, dice, *, final=False):
    values = {"RV": dice, "MYO": dice, "LV": dice, "mean": dice}
    length = {"epochs": 2, "iterations_per_epoch": 50, "iterations": 100, "budget_minutes": 30.0}
    distances = {**values, "mean": None, "without_value": 1}
    return {
        "trainer": trainer,
        "fold": fold,
        "seed": 0,
        "final": final,
        **length,
        "dice": values,
        "hd95": distances,
    } | {"curve": [0.1, dice]}


def test_the_table_has_the_last_run_of_each_fold_their_mean_and_none_of_the_report(script, monkeypatch, tmp_path):
    report = script("pocket_report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = [row("Worse", 1, 0.1), row("Better", 1, 0.8), row("Worse", 1, 0.5), row("Worse", 2, 0.6)]
    rows.append(row("Better", 0, 0.2, final=True))
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    lines = [line.strip("| ").split(" | ") for line in report.table(report.runs(final=False, fold=None)).splitlines()]
    assert [(folds, name.strip("`"), dice) for folds, name, _, _, _, _, dice, *_ in lines[2:]] == [
        ("1", "Better", "80.00"),
        ("1", "Worse", "50.00"),
        ("2", "Worse", "60.00"),
        ("1, 2", "Worse", "55.00"),
    ]
    groups = report.runs(final=False, fold=2)
    assert len(report.table(groups).splitlines()) == 3
    report.draw_curves(groups, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_differences_are_those_of_the_final_rows(script):
    report = script("pocket_report")
    kept = json.loads((report.RESULTS / "differences.json").read_text())
    found = report.differences(report.runs(final=True, fold=None))
    assert [(row["model"], row["reference"], row["metric"], row["folds"]) for row in found] == [
        (row["model"], row["reference"], row["metric"], row["folds"]) for row in kept
    ]
    for row, old in zip(found, kept, strict=True):
        assert row["mean"] == pytest.approx(old["mean"])
        assert row["ci95"] == pytest.approx(old["ci95"])
    lines = report.differences_table(found).splitlines()
    assert len(lines) == 2 + len(found) // 2


def test_rows_of_a_gpu_are_set_against_nnunet_of_the_same_length_and_written_apart(
    script, monkeypatch, tmp_path, capsys
):
    report = script("pocket_report")
    kept = report.RESULTS / "final"
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "final").mkdir()
    ours, nnunet = "LeViTUNetTrainer@2d", "nnUNetTrainer@2d"
    on_gpu = {"device_type": "cuda", "budget_minutes": None, "epoch_seconds": 12.0, "peak_memory_mib": 9000}
    rows = [row("nnUNetTrainer", 0, 0.1, final=True)]
    for trainer, epochs, dice in ((nnunet, 50, 0.8), (ours, 50, 0.9), (ours, 20, 0.5)):
        rows.append(row(trainer, 0, dice, final=True) | on_gpu | {"epochs": epochs, "iterations": 250 * epochs})
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    for name, of in (
        ("nnUNetTrainer-2d_50", "nnUNetTrainer"),
        ("LeViTUNetTrainer-2d_50", "HybridRecipeTrainer_nomirror_bf16"),
    ):
        shutil.copy(kept / f"{of}_60min_f0_s0.json", tmp_path / "final" / f"{name}_f0_s0.json")

    def called(*flags):
        monkeypatch.setattr(sys, "argv", ["pocket_report.py", "--final", "--device", "cuda", *flags])
        report.main()
        return capsys.readouterr().out

    table = [line.strip("| ").split(" | ") for line in called("--fold", "0").split("\n\n")[0].splitlines()]
    assert [(cells[1], cells[3], cells[6], cells[-2:]) for cells in table[2:]] == [
        (f"`{ours}`", "5000", "50.00", ["12.0", "9000"]),
        (f"`{ours}`", "12500", "90.00", ["12.0", "9000"]),
        (f"`{nnunet}`", "12500", "80.00", ["12.0", "9000"]),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"runs.jsonl", "final"}
    called()
    found = json.loads((tmp_path / "differences_cuda.json").read_text())
    assert [(entry["model"], entry["reference"], entry["epochs"]) for entry in found] == [(ours, nnunet, 50)] * 2
    assert (tmp_path / "curves_final_cuda.png").is_file()


def test_a_run_that_is_done_is_not_done_again(benchmark, monkeypatch, tmp_path):
    def train(*_):
        pytest.fail("it trains again")

    monkeypatch.setattr(benchmark, "train", train)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    work = tmp_path / "pocket" / "nnUNetTrainer@2d_50_f0_s0"
    work.mkdir(parents=True)
    (work / "row.json").touch()
    flags = "run --trainer nnUNetTrainer --configuration 2d --plans nnUNetPlans --fold 0 --epochs 50 --final --c --once"
    monkeypatch.setattr(sys, "argv", ["pocket_benchmark.py", *flags.split()])
    benchmark.main()


def test_peak_memory_is_that_of_all_parts_of_a_training(benchmark, monkeypatch, tmp_path):
    for mib in (3000, 2000):
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda mib=mib: mib * 2**20)
        assert benchmark.peak_memory("cuda", tmp_path / "run") == {"peak_memory_mib": 3000}
    assert benchmark.peak_memory("cpu", tmp_path / "run") == {}


@pytest.mark.parametrize("ends", [{}, {"UNet2022Trainer": 75}, {"UNet2022Trainer": 143, "LeViTUNetTrainer": 1}])
def test_trainings_on_a_gpu_say_what_is_left(ends, tmp_path):
    """What takes the place of Python notes its arguments and ends as a training does: done, stopped or failed."""
    python = tmp_path / "python"
    cases = " ".join(f"*'--trainer {name} '*) exit {code};;" for name, code in ends.items())
    python.write_text(f'#!/bin/bash\necho "$POCKET_RESULTS $*" >> {tmp_path}/calls\ncase "$* " in {cases} *) ;; esac\n')
    python.chmod(0o755)

    def started(**variables):
        command = ["bash", EXPERIMENTS / "pocket_gpu.sh", "nnUNetTrainer", "LeViTUNetTrainer", "UNet2022Trainer"]
        environment = {**os.environ, "PYTHON": str(python), "OUT": "out", "PARALLEL": "3", **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout.splitlines()

    words = {0: "done", 1: "failed", 75: "not done yet, the same command goes on"}
    expected = {"nnUNetTrainer": 0, "LeViTUNetTrainer": 0, "UNet2022Trainer": 0} | ends
    lines = [f"{name}: {words[75 if code == 143 else code]}" for name, code in expected.items()]
    assert started() == (75 if ends else 0, lines)
    calls = (tmp_path / "calls").read_text()
    assert calls.count("out docs/lab/experiments/pocket_benchmark.py run --trainer") == 3
    assert calls.count("--fold 0 --epochs 50 --device cuda --final --c --once") == 3
    if not ends:
        assert started(LIMIT="60") == (75, [line.replace("done", words[75]) for line in lines])
        assert (tmp_path / "calls").read_text() == calls


def test_every_candidate_is_the_name_of_a_training():
    candidates = json.loads((EXPERIMENTS / "pocket_candidates.json").read_text())
    names = [key.partition("@")[0] for group, keys in candidates.items() if group != "note" for key in keys]
    assert len(names) > 20
    for name in names:
        if family_of(name) is not None:
            check_canonical(name)
