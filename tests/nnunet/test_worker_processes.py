import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_levit.inference import pipeline
from nnunetv2_levit.nnunet import worker_processes

METHODS = [method for method in ("fork", "forkserver", "spawn") if method in multiprocessing.get_all_start_methods()]

PARENT = """
import multiprocessing, sys, time
from nnunetv2_levit.nnunet.worker_processes import die_with_parent

def work(queue):
    die_with_parent()
    queue.put("alive")
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(queue.get(timeout=60), process.pid, flush=True)
    time.sleep(600)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says what runs in /proc")
@pytest.mark.parametrize("method", METHODS)
def test_a_worker_lives_as_long_as_its_parent(method, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script, method], stdout=subprocess.PIPE, text=True)
    word, pid = parent.stdout.readline().split()
    assert word == "alive"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 60
    while is_running(int(pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(int(pid))


def test_a_process_that_is_no_worker_goes_on(monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))
    monkeypatch.setattr(worker_processes.ctypes, "CDLL", lambda _: pytest.fail("asked to be killed"))
    worker_processes.die_with_parent()


def test_workers_of_a_prediction_end_with_it(monkeypatch):
    asked = []
    monkeypatch.setattr(pipeline, "die_with_parent", lambda: asked.append(True))
    monkeypatch.setattr(pipeline.torch, "set_num_threads", lambda number: None)
    pipeline._start_worker()
    assert asked == [True]
