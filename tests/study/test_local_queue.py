"""The local queue over processes that write the files of trainings and compute nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from nnunetv2_levit.study import cancel, load_study, local_queue, run, status
from nnunetv2_levit.study.attempts import attempts
from nnunetv2_levit.study.jobs import Job, Model, attempts_file, fold_folder, jobs_of, lock_file
from nnunetv2_levit.study.local_queue import LocalQueue, Slot
from nnunetv2_levit.study.locks import holder_of

ONE = Job("train", Model("UNet2022Trainer", "2d"), 1, fold=0)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def starts(study):
    return {job.id: len(attempts(attempts_file(study, job))) for job in jobs_of(study).values()}


def assert_each_epoch_once(study):
    for job in jobs_of(study).values():
        if job.kind == "train":
            epochs = json.loads((fold_folder(study, job) / "checkpoint_final.pth").read_text())
            assert epochs == [f"epoch {n} of seed {job.seed}" for n in range(len(epochs))]


def test_everything_is_done_once_and_a_second_run_does_what_is_outdated(study):
    lines = []
    states = run(study, say=lines.append)
    assert {state.name for state in states.values()} == {"done"}
    counted = Counter(job.kind for job in jobs_of(study).values())
    assert counted == {"train": 8, "predict": 4, "evaluate": 4, "report": 1}
    assert lines[-1] == "done     report"
    assert_each_epoch_once(study)

    summary = fold_folder(study, ONE) / "validation" / "summary.json"
    later = (study.folder / "report" / "report.html").stat().st_mtime + 0.001
    os.utime(summary, (later, later))  # as if it had been trained again
    model = "UNet2022Trainer-2d-seed1"
    outdated = {f"predict-{model}-part0", f"evaluate-{model}", "report"}
    assert {name for name, state in status(study).states.items() if state.name != "done"} == outdated
    run(study, say=lines.append)
    assert starts(study) == {name: 2 if name in outdated else 1 for name in jobs_of(study)}


def test_a_killed_training_goes_on_and_a_failing_one_stops_no_other(study, monkeypatch):
    monkeypatch.setenv("FAKE_EPOCHS", "3")
    monkeypatch.setenv("FAKE_KILLED", "LeViTUNetTrainer_128s-2d-seed0")
    monkeypatch.setenv("FAKE_FAILS", ONE.id)
    lines = []
    states = run(study, say=lines.append)
    names = {name: state.name for name, state in states.items()}
    failed = [name for name, state in names.items() if state == "failed"]
    assert failed == [ONE.id]
    assert states[ONE.id].why == "RuntimeError: CUDA out of memory"
    model = "UNet2022Trainer-2d-seed1"
    blocked = {name for name, state in names.items() if state == "blocked"}
    assert blocked == {f"predict-{model}-part0", f"evaluate-{model}"}
    assert all(state == "done" for name, state in names.items() if name not in {*failed, *blocked})
    killed = [name for name, count in starts(study).items() if count == 2]
    assert killed == [f"train-LeViTUNetTrainer_128s-2d-seed0-fold{fold}" for fold in (0, 1)]
    assert f"failed   {ONE.id}: RuntimeError: CUDA out of memory" in lines
    text = status(study).text()
    assert "RuntimeError: CUDA out of memory" in text
    assert str(study.folder / "logs" / f"{ONE.id}.txt") in text

    monkeypatch.delenv("FAKE_FAILS")  # the next run tries it again and finishes the rest
    assert {state.name for state in run(study, say=lines.append).values()} == {"done"}
    assert starts(study)[ONE.id] == 2
    assert_each_epoch_once(study)


def queue_process(study):
    """The queue in a process of its own, as a shell would start it."""
    command = [sys.executable, "-m", "nnunetv2_levit.cli", "study", str(study.file), "run"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def test_two_queues_at_once_start_nothing_twice_even_when_one_is_killed(study, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    first, second = queue_process(study), queue_process(study)
    wait_until(lambda: any(holder_of(lock_file(study, job)) for job in jobs_of(study).values()))
    first.send_signal(signal.SIGKILL)  # what it had started lives on
    first.wait()
    assert second.wait(120) == 0
    assert {state.name for state in status(study).states.values()} == {"done"}
    assert set(starts(study).values()) == {1}
    assert_each_epoch_once(study)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_training_asked_to_stop_saves_its_epoch_and_the_next_run_goes_on(study, monkeypatch, number):
    monkeypatch.setenv("FAKE_EPOCHS", "400")
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    result = {}
    thread = threading.Thread(target=lambda: result.update(run(study, say=lambda _: None)))
    thread.start()
    first = next(iter(jobs_of(study).values()))
    wait_until(lambda: (fold_folder(study, first) / "checkpoint_latest.pth").exists())
    os.kill(holder_of(lock_file(study, first)).pid, number)
    wait_until(lambda: holder_of(lock_file(study, first)) is None)
    assert attempts(attempts_file(study, first))[-1].outcome == "stopped"
    cancel(study)  # asks all others, and the queue starts nothing more
    thread.join(60)
    assert not thread.is_alive()
    assert result[first.id].name == "interrupted"
    epochs = json.loads((fold_folder(study, first) / "checkpoint_latest.pth").read_text())
    assert 0 < len(epochs) < 400

    monkeypatch.setenv("FAKE_EPOCHS", str(len(epochs) + 1))
    monkeypatch.setenv("FAKE_SECONDS", "0")
    states = run(load_study(study.file), say=lambda _: None)
    assert states[first.id].name == "done"
    assert json.loads((fold_folder(study, first) / "checkpoint_final.pth").read_text())[: len(epochs)] == epochs


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [("cuda:1", None, "1"), ("cuda", None, "0"), ("cuda:1", "2,5", "5"), ("cpu", None, None)],
)
def test_each_job_sees_its_own_device_alone(study, monkeypatch, device, visible, expected):
    seen = {}
    monkeypatch.setattr(local_queue.subprocess, "Popen", lambda words, env, **_: seen.update(env, words=words))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    LocalQueue(study)._start(ONE, Slot(device, study.folder / "device.lock"))
    assert seen.get("CUDA_VISIBLE_DEVICES") == expected
    words = seen["words"]
    assert words[words.index("--device") + 1] == device.partition(":")[0]
