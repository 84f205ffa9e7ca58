"""A queue over the devices of this machine: one job at a time on each, one process a job."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.file import Study, job_environment
from nnunetv2_levit.study.jobs import Job, attempts_file, jobs_of, log_file, needs
from nnunetv2_levit.study.locks import holder_of
from nnunetv2_levit.study.state import DONE, FAILED, INTERRUPTED, RUNNING, WAITING, State, StudyFiles
from nnunetv2_levit.study.work import STOPPED, TAKEN, work_command

POLL = 2.0
"""Seconds between looks at what other processes have; what this queue has started wakes it by itself."""


@dataclass(frozen=True)
class Slot:
    """A device, or one of several shares of it, with the lock that one job at a time has."""

    device: str
    lock: Path


@dataclass(frozen=True)
class _Run:
    """A job that this queue has started."""

    job: Job
    slot: Slot
    process: subprocess.Popen
    attempts_before: int


def slots_of(study: Study) -> list[Slot]:
    """One slot for each device in the file; a second queue on this machine finds them taken."""
    result = []
    for index, device in enumerate(study.local.devices):
        share = study.local.devices[:index].count(device)
        name = f"device-{socket.gethostname()}-{device.replace(':', '')}-{share}.lock"
        result.append(Slot(device, study.folder / "locks" / name))
    return result


def cancel_file(study: Study) -> Path:
    """Touched by `cancel`: whatever started before stops."""
    return study.folder / "cancelled"


def cancelled_since(study: Study, moment: float) -> bool:
    try:
        return cancel_file(study).stat().st_mtime >= moment
    except FileNotFoundError:
        return False


def forgiven(study: Study) -> dict[str, State]:
    """All states, with what failed in an earlier run ready to be tried again."""
    failed = [state.job for state in StudyFiles(study).states(progress=False).values() if state.name == FAILED]
    for job in failed:
        attempts.again(attempts_file(study, job))
    return StudyFiles(study).states(progress=False)


@dataclass
class LocalQueue:
    """Runs every job that is not done; see `run`.

    Attributes:
        say: called with a line for each start and end.
    """

    study: Study
    say: Callable[[str], None] = print
    _states: dict[str, State] = field(default_factory=dict)
    _needs: dict[str, list[str]] = field(default_factory=dict)
    _running: dict[str, _Run] = field(default_factory=dict)
    _given_up: set[str] = field(default_factory=set)
    _killed_at_start: Counter = field(default_factory=Counter)
    _stopping: bool = False
    _changed: set[str] = field(default_factory=set)
    _woken: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> dict[str, State]:
        """Run until everything is done, failed or blocked, or the queue is asked to stop; returns the states.

        A job that was killed is started again and goes on; one that failed or was asked to stop is left for the next
        run. SIGINT and SIGTERM ask the trainings to finish their epoch, a second one kills them.
        """
        started = time.time()
        slots = slots_of(self.study)
        self._needs = {job.id: [n.id for n in needs(self.study, job)] for job in jobs_of(self.study).values()}
        self._states = forgiven(self.study)
        with self._signals(), self._woken:
            while True:
                if not self._stopping and cancelled_since(self.study, started):
                    self.stop()
                self._look()
                ready = [] if self._stopping else self._ready_jobs()
                if not self._running and (self._stopping or not (ready or self._elsewhere())):
                    break
                self._fill(slots, ready)
                self._woken.wait(POLL)
        return StudyFiles(self.study).states()

    # which job next ---------------------------------------------------------------------------------------------------

    def _elsewhere(self) -> list[State]:
        """Jobs that another queue or a cluster has."""
        return [s for s in self._states.values() if s.name == RUNNING and s.job.id not in self._running]

    def _look(self) -> None:
        """Read again the states of what other processes had, and of what depends on what changed."""
        files = StudyFiles(self.study)
        for state in self._elsewhere():
            now = files.state(state.job, self._states, progress=False)
            if now.name != state.name:
                self._changed.add(state.job.id)
            self._states[state.job.id] = now
        affected, self._changed = self._changed, set()
        for job_id, state in self._states.items():  # in order: what a job needs comes before it
            if affected.isdisjoint(self._needs[job_id]):
                continue
            affected.add(job_id)
            if state.name not in (DONE, FAILED) and job_id not in self._running:
                self._states[job_id] = files.state(state.job, self._states, progress=False)

    def _ready_jobs(self) -> list[Job]:
        """Jobs that can start now; the report when there is nothing else left to come."""
        idle = [
            state
            for job_id, state in self._states.items()
            if state.name in (WAITING, INTERRUPTED) and job_id not in self._running and job_id not in self._given_up
        ]
        ready = [
            state.job
            for state in idle
            if state.job.kind != "report" and all(self._states[n].name == DONE for n in self._needs[state.job.id])
        ]
        if not ready and not self._running and not self._elsewhere():
            reports = [state.job for state in idle if state.job.kind == "report"]
            ready = [job for job in reports if any(self._states[n].name == DONE for n in self._needs[job.id])]
        return ready

    def _fill(self, slots: list[Slot], ready: list[Job]) -> None:
        busy = {run.slot for run in self._running.values()}
        free = [slot for slot in slots if slot not in busy and holder_of(slot.lock) is None]
        for slot, job in zip(free, ready, strict=False):
            run = _Run(job, slot, self._start(job, slot), len(attempts.attempts(attempts_file(self.study, job))))
            self._running[job.id] = run
            self.say(f"started  {job.id} on {slot.device}")
            threading.Thread(target=self._wait_for, args=(run,), daemon=True).start()

    # one job ----------------------------------------------------------------------------------------------------------

    def _start(self, job: Job, slot: Slot) -> subprocess.Popen:
        environment = job_environment(self.study, seed=job.seed)
        kind, _, number = slot.device.partition(":")
        if kind == "cuda":
            visible = environment.get("CUDA_VISIBLE_DEVICES")  # of those that this process sees
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(number or 0)] if visible else number or "0"
        log = log_file(self.study, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                work_command(self.study, job, device=kind, device_lock=slot.lock),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the queue, which passes it on
            )

    def _wait_for(self, run: "_Run") -> None:
        code = run.process.wait()
        if code < 0:  # its workers may live on
            _signal_group(run.process, signal.SIGKILL)
        with self._woken:
            del self._running[run.job.id]
            self._states[run.job.id] = StudyFiles(self.study).state(run.job, self._states, progress=False)
            self._note_end(run, code)
            self._changed.add(run.job.id)
            self._woken.notify()

    def _note_end(self, run: "_Run", code: int) -> None:
        """Say how a job ended; this run starts it again only if it was killed, or if another process had it."""
        name, state = run.job.id, self._states[run.job.id]
        several = attempts.attempts(attempts_file(self.study, run.job))
        begun = len(several) > run.attempts_before
        if state.name == DONE:
            self.say(f"done     {name}")
        elif code == TAKEN:
            pass
        elif state.name == FAILED:
            self.say(f"failed   {name}: {state.why}")
        elif code == STOPPED or self._stopping:
            self._given_up.add(name)
            self.say(f"stopped  {name}: the next run goes on with it")
        elif begun and several[-1].outcome is None:
            self.say(f"killed   {name} (exit code {code}): it is started again")
        elif code < 0 and self._killed_at_start[name] + 1 < attempts.MOST_WITHOUT_PROGRESS:
            self._killed_at_start[name] += 1
            self.say(f"killed   {name} (exit code {code}) before it began: it is started again")
        else:
            self._given_up.add(name)
            log = log_file(self.study, run.job)
            self.say(f"failed   {name}: it ended (exit code {code}) without its result; see {log}")

    # stopping ---------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more and ask what runs to finish its epoch; a second call kills it."""
        first, self._stopping = not self._stopping, True
        for run in list(self._running.values()):
            if first:
                run.process.send_signal(signal.SIGTERM)
            else:
                _signal_group(run.process, signal.SIGKILL)
        if first and self._running:
            self.say("stopping: trainings finish their epoch and save; interrupt again to kill them")

    def _signals(self) -> "_Handlers":
        return _Handlers(self)


class _Handlers:
    """SIGINT and SIGTERM stop the queue while it runs in a process's main thread."""

    def __init__(self, queue: LocalQueue) -> None:
        self.queue = queue
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, lambda *_: self.queue.stop())

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
