"""Locks between processes, and what a killed one leaves."""

import json
import os
import socket
import subprocess
import sys

import pytest

from nnunetv2_levit.study import locks
from nnunetv2_levit.study.locks import Holder, Lock, holder_of

HOLD = "import sys, time; from pathlib import Path; from nnunetv2_levit.study.locks import Lock; "
HOLD += "assert Lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)"


@pytest.fixture(params=[True, False], ids=["flock", "no flock"])
def flock(request, monkeypatch):
    """With the file system's lock, and on one that has none."""
    if not request.param:
        monkeypatch.setattr(locks, "_flock", lambda descriptor, operation: None)
    return request.param


def test_one_at_a_time(tmp_path, flock):
    first, second = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert first.acquire()
    assert holder_of(tmp_path / "a.lock").pid == os.getpid()
    if flock:  # without it, this process looks like the dead holder of its own lock only when it is dead
        assert not second.acquire(tries=1)
    first.release()
    assert holder_of(tmp_path / "a.lock") is None
    assert second.acquire()
    second.release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    path = tmp_path / "a.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert holder_of(path).pid == process.pid
    assert not Lock(path).acquire(tries=1)
    process.kill()
    process.wait()
    assert path.read_text()  # it did not sign off
    assert holder_of(path) is None
    lock = Lock(path)
    assert lock.acquire()
    lock.release()


@pytest.mark.parametrize(
    ("host", "slurm_job", "age", "held"),
    [
        ("elsewhere", None, 0, True),
        ("elsewhere", None, locks.STALE_AFTER + 60, False),
        ("elsewhere", "12_3", 0, False),  # this very Slurm job, requeued on another machine
        ("elsewhere", "12_4", 0, True),
        (socket.gethostname(), None, 0, False),  # a dead process of this machine
    ],
)
def test_what_another_machine_holds_is_told_by_its_heartbeat(tmp_path, monkeypatch, flock, host, slurm_job, age, held):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    path = tmp_path / "a.lock"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(json.dumps({"host": host, "pid": dead.pid, "slurm_job": slurm_job, "since": 0.0}))
    (tmp_path / "a.lock.held").mkdir()
    before = path.stat().st_mtime - age
    os.utime(path, (before, before))
    assert (holder_of(path) is not None) == held
    lock = Lock(path)
    assert lock.acquire(tries=1) != held
    lock.release()
    assert holder_of(path) is None or held
    assert not list(tmp_path.glob(".clock*"))


def test_a_holder_reads_as_a_sentence():
    assert str(Holder("node7", 12, "34_5", 0.0)) == "node7, process 12, Slurm job 34_5"
