"""Slurm: what a node runs, without Slurm; and a study on a real Slurm of one node, where there is one."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from nnunetv2_levit.study import load_study, run, status
from nnunetv2_levit.study.attempts import attempts
from nnunetv2_levit.study.jobs import attempts_file, fold_folder, jobs_of
from tests.conftest import SHARED
from tests.study.test_local_queue import assert_each_epoch_once, starts, wait_until

pytest.importorskip("submitit")

from nnunetv2_levit.study import slurm
from nnunetv2_levit.study.slurm import SlurmTask

SCRIPT = SHARED / "slurm" / "one_node_slurm.sh"
PORTS = {"SlurmctldPort": 16817, "SlurmdPort": 16818}
CLUSTER = """
[executor]
kind = "slurm"
[slurm]
gpus = 0
cpus = 1
memory_gb = 1
time_minutes = 30
"""


class Requeued(Exception):  # noqa: N818 (no error)
    pass


@pytest.fixture
def task(study, monkeypatch):
    """The task of the study's first training, run as on a node; requeuing raises `Requeued`."""

    def requeued():
        raise Requeued

    monkeypatch.setattr(slurm, "requeue", requeued)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT)}
    job = next(iter(jobs_of(study).values()))
    yield SlurmTask(str(study.file), job.id, restarts=2), job
    for number, handler in before.items():
        signal.signal(number, handler)


def signal_when_begun(study, job, number):
    def send():
        wait_until(lambda: (fold_folder(study, job) / "checkpoint_latest.pth").exists())
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize(("number", "again"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_only_the_time_limits_signal_puts_a_training_back_into_the_queue(study, task, monkeypatch, number, again):
    function, job = task
    monkeypatch.setenv("FAKE_EPOCHS", "400")
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    thread = signal_when_begun(study, job, number)
    if again:
        with pytest.raises(Requeued):
            function()
    else:
        assert function() == "exit code 75"
    thread.join()
    assert [attempt.outcome for attempt in attempts(attempts_file(study, job))] == ["stopped"]


def test_a_cancelled_job_that_dies_is_not_put_back(study, task, monkeypatch):
    function, job = task
    monkeypatch.setattr(slurm.attempts, "MOST_WITHOUT_PROGRESS", 9)
    process = SimpleNamespace(poll=lambda: None, send_signal=lambda number: None)
    process.wait = lambda: (os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM)[1]
    monkeypatch.setattr(slurm.subprocess, "Popen", lambda *a, **k: process)
    slurm.attempts.begin(attempts_file(study, job))
    assert function() == "exit code -15"


def test_requeues_have_an_end_and_it_is_said(study, task, monkeypatch):
    function, job = task
    monkeypatch.setenv("FAKE_EPOCHS", "400")
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    thread = signal_when_begun(study, job, signal.SIGUSR2)
    assert "after 2 requeues" in function()
    thread.join()
    state = status(study).states[job.id]
    assert state.name == "failed"
    assert "time_minutes" in state.why


def test_a_killed_training_is_put_back_and_a_failed_one_is_not(study, task, monkeypatch):
    function, job = task
    monkeypatch.setenv("FAKE_KILLED", job.id)
    with pytest.raises(Requeued):
        function()
    monkeypatch.setenv("FAKE_FAILS", job.id)
    assert function() == "exit code 1"


def test_printed_lines_are_shell_and_wait_for_one_another(study_file, faked):
    text = study_file.read_text() + "[slurm]\npartition = 'gpu'\nextra = { exclusive = true }\n"
    for scheduler, words in {
        "sbatch": ("--array=0-3%16", "--gpus-per-node=1", "--partition=gpu", "--dependency=afterany:$train_1:$train_2"),
        "bsub": ("[1-4]%16", "num=1", "-q gpu", "ended(small-train_1) && ended(small-train_2)"),
    }.items():
        study_file.write_text(text + f'[executor]\nkind = "print"\nscheduler = "{scheduler}"\n')
        lines = []
        study = load_study(study_file)
        run(study, say=lines.append)
        assert not study.folder.exists()
        assert len(lines) == 6  # logs' folder, two models' trainings, predictions, evaluations, the report
        for word in words:
            assert word in "\n".join(lines)
        checked = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    """A real Slurm of one node on ports of its own."""
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch on this machine: apt-get install slurm-wlm munge")
    if not SCRIPT.is_file() or os.geteuid() != 0:
        pytest.skip(f"starting a Slurm needs {SCRIPT} and root")
    folder = tmp_path_factory.mktemp("slurm")
    script = folder / "slurm.sh"
    ports = "".join(f"{name}={number}\n" for name, number in PORTS.items())
    script.write_text(SCRIPT.read_text().replace("CR_Core", "CR_CPU").replace("AuthType=", f"{ports}AuthType="))
    started = subprocess.run(["bash", script, "start", folder / "node"], capture_output=True, text=True)
    configuration = started.stdout.strip().rpartition("=")[2]
    if started.returncode or not configuration:
        pytest.skip(f"Slurm does not start here: {started.stderr[-300:]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", configuration)
        yield
        with suppress(AssertionError):  # a step whose node goes away first would stay behind
            wait_until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout, seconds=30)
        for file in (folder / "node" / "run").glob("*.pid"):  # `scontrol shutdown` misses a node that is busy
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGTERM)


@pytest.mark.slow
def test_a_real_slurm_does_everything_once_though_it_was_submitted_twice(one_node, study_file, faked, monkeypatch):
    text = study_file.read_text().replace("seeds = [0, 1]", "seeds = [3]").replace("folds = [0, 1]", "folds = [0]")
    study_file.write_text(text + CLUSTER)
    study = load_study(study_file)
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    monkeypatch.setenv("FAKE_FAILS", "UNet2022Trainer")
    command = [sys.executable, "-m", "nnunetv2_levit.cli", "study", str(study_file), "run"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert any("submitted 1 train jobs" in text for text in said), said
    wait_until(lambda: not slurm.queued_jobs(study), seconds=240)
    states = {name: state.name for name, state in status(study).states.items()}
    ours, theirs = "LeViTUNetTrainer_128s-2d-seed3", "UNet2022Trainer-2d-seed3"
    assert states == {
        f"train-{ours}-fold0": "done",
        f"train-{theirs}-fold0": "failed",
        f"predict-{ours}-part0": "done",
        f"predict-{theirs}-part0": "blocked",
        f"evaluate-{ours}": "done",
        f"evaluate-{theirs}": "blocked",
        "report": "done",
    }
    assert starts(study)[f"train-{ours}-fold0"] == 1

    monkeypatch.delenv("FAKE_FAILS")
    lines = []  # the rest by hand, with the lines of the executor `print`
    run(load_study(study_file, executor="print"), say=lines.append)
    submitted = subprocess.run(["bash", "-e"], input="\n".join(lines), text=True, capture_output=True)
    assert submitted.returncode == 0, submitted.stderr
    wait_until(lambda: all(state.name == "done" for state in status(study).states.values()), seconds=240)
    assert starts(study)[f"train-{ours}-fold0"] == 1
    assert_each_epoch_once(study)
