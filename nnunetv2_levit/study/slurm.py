"""Jobs on Slurm, submitted through submitit as plain arrays; what they do and how they end is found from files.

Many clusters keep no accounting, without which submitit knows no states: ``squeue`` says what waits and runs, and a
job's files say the rest.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.check import ModelFacts
from nnunetv2_levit.study.file import Study, job_environment, load_study
from nnunetv2_levit.study.jobs import ALL_MODELS, KINDS, Job, Model, attempts_file, jobs_of, needs
from nnunetv2_levit.study.local_queue import cancelled_since, forgiven
from nnunetv2_levit.study.locks import Lock, slurm_job_id
from nnunetv2_levit.study.state import DONE, INTERRUPTED, WAITING, State, StudyFiles
from nnunetv2_levit.study.time_limits import Limits, limits_by_model, longest
from nnunetv2_levit.study.work import STOPPED, TAKEN, work_command

PATIENCE = 600.0
"""Seconds for which a command of Slurm is repeated while the controller does not answer (it may be restarting)."""
WAIT_FOR_LOCK = 240.0
"""Seconds for which a job waits for the lock of a process that died on another machine."""
PARSER_FLAGS = ("partition", "account", "qos", "constraint")


class SqueueError(RuntimeError):
    """Slurm's controller did not answer."""


def require_slurm() -> None:
    """Raise UserError where submitit or Slurm is missing."""
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "the executor slurm needs submitit: pip install 'nnunetv2_levit[cluster]', or choose print or local"
        ) from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("there is no sbatch on this machine: submit from a login node, or choose the executor local")


# what runs on a node --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlurmTask:
    """What submitit calls on the node: runs one job as a process and decides whether Slurm shall start it again.

    On SIGUSR2 (the time limit comes) the training finishes its epoch and the job is requeued. On SIGTERM (cancelled or
    preempted) it finishes its epoch, if Slurm leaves it the time, and Slurm itself decides what becomes of the job.
    """

    study_file: str
    job_id: str
    restarts: int

    def __call__(self) -> str:
        study = load_study(self.study_file, executor="slurm")
        job = jobs_of(study)[self.job_id]
        started = time.time()
        if (missing := self._missing(study, job)) is not None:
            return f"not begun, as {missing.id} is not done"
        code, asked = self._run(study, job)
        if code == 0:
            return "done"
        again = code == STOPPED and signal.SIGUSR2 in asked and not cancelled_since(study, started)
        if again and int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= self.restarts:
            reason = f"not done after {self.restarts} requeues at the time limit: give [slurm] time_minutes more"
            attempts.end(attempts_file(study, job), attempts.FAILED, reason)
            return reason
        # on SIGTERM Slurm has decided already: it has cancelled the job, or puts it back itself
        if again or (signal.SIGTERM not in asked and self._was_killed(study, job, code)):
            requeue()
            sys.exit(-1)  # without submitit's result, as submitit itself ends before a requeue
        return f"exit code {code}"

    @staticmethod
    def _missing(study: Study, job: Job) -> Job | None:
        """A job that should have been done before this one and has not (the report takes what is there)."""
        if job.kind in ("train", "report"):
            return None
        files = StudyFiles(study)  # not all states: each of 10 000 jobs would read the files of all others
        return next((other for other in needs(study, job) if files.made(other) is None), None)

    def _run(self, study: Study, job: Job) -> tuple[int, set[int]]:
        asked: set[int] = set()
        process: subprocess.Popen | None = None

        def forward(number: int, _: object) -> None:
            asked.add(number)
            if process is not None and process.poll() is None:
                process.send_signal(number) if study.gpus == 1 else os.killpg(process.pid, number)

        for number in (signal.SIGUSR2, signal.SIGTERM):  # in place of submitit's own, which requeue at once
            signal.signal(number, forward)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        deadline = time.monotonic() + WAIT_FOR_LOCK
        while True:
            process = subprocess.Popen(
                work_command(study, job, device="cuda" if study.slurm.gpus else "cpu"),
                env=job_environment(study, seed=job.seed),
                start_new_session=True,
            )
            code = process.wait()
            if code != TAKEN or asked or time.monotonic() > deadline:
                return code, asked
            time.sleep(10)

    @staticmethod
    def _was_killed(study: Study, job: Job, code: int) -> bool:
        several = attempts.attempts(attempts_file(study, job))
        open_end = bool(several) and several[-1].outcome is None
        return code < 0 and open_end and attempts.without_progress(several) < attempts.MOST_WITHOUT_PROGRESS


def requeue() -> None:
    """Put this process's own Slurm job back into the queue; repeated while the controller does not answer."""
    _patiently(["scontrol", "requeue", slurm_job_id() or ""])


def _patiently(command: Sequence[str], *, patience: float = PATIENCE) -> str:
    """Standard output of a command of Slurm.

    Raises:
        SqueueError: it failed for longer than ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                return done.stdout
            said = (done.stderr or done.stdout).strip().splitlines()
            reason = said[-1] if said else f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise SqueueError(reason)
        time.sleep(5)


# what was submitted ---------------------------------------------------------------------------------------------------


def _submitted_file(study: Study) -> Path:
    return study.folder / "slurm" / "submitted.jsonl"


def submitted_jobs(study: Study) -> dict[str, str]:
    """From a job's id to the Slurm job that it was last submitted as."""
    try:
        lines = _submitted_file(study).read_text().splitlines()
    except FileNotFoundError:
        return {}
    result = {}
    for line in lines:
        try:
            entry = json.loads(line)
            result[entry["job"]] = entry["slurm"]
        except (ValueError, KeyError):
            continue  # the last line of a killed process
    return result


def queued_jobs(study: Study, *, patience: float = 0.0) -> dict[str, str]:
    """From a job's id to what ``squeue`` says of it, for the jobs that wait or run; asked once for all.

    Raises:
        SqueueError: the controller does not answer.
    """
    submitted = submitted_jobs(study)
    if not submitted:
        return {}
    listing = _patiently(["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r"], patience=patience)
    known = {}
    for line in listing.splitlines():
        number, state, reason = (part.strip() for part in line.split("|", 2))
        known[number] = f"Slurm job {number}, {state.lower()}" + (f" ({reason})" if reason != "None" else "")
    return {job: known[number] for job, number in submitted.items() if number in known}


def cancel_submitted(study: Study, *, now: bool) -> list[str]:
    """Take what waits out of the queue; what runs gets SIGTERM (and, with ``now``, is killed)."""
    try:
        queued = queued_jobs(study, patience=30)
    except SqueueError as error:
        raise UserError(f"squeue does not answer ({error}): try again when the controller runs") from None
    submitted, told = submitted_jobs(study), []
    running = {job: number for job, number in submitted.items() if "running" in queued.get(job, "")}
    waiting = {job: number for job, number in submitted.items() if job in queued and job not in running}
    for numbers in _chunks(sorted(waiting.values()), 500):
        subprocess.run(["scancel", *numbers], capture_output=True)
    for numbers in _chunks(sorted(running.values()), 500):
        flags = [] if now else ["--signal=TERM"]
        subprocess.run(["scancel", *flags, *numbers], capture_output=True)
    told += [f"{job} was taken out of the queue (Slurm job {number})" for job, number in waiting.items()]
    how = "killed" if now else "asked to stop after its epoch"
    return told + [f"{job} was {how} (Slurm job {number})" for job, number in running.items()]


# submitting -----------------------------------------------------------------------------------------------------------


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def parameters_of(study: Study, kind: str, limits: Limits) -> dict[str, Any]:
    """submitit's parameters for jobs of a kind; evaluations and the report take no GPU."""
    asked = study.slurm
    gpus = asked.gpus if kind in ("train", "predict") else 0
    parameters: dict[str, Any] = {
        "job_name": f"{study.name}-{kind}",
        "time": asked.time_minutes,
        "cpus_per_task": asked.cpus,
        "mem": f"{round(asked.memory_gb * 1024)}MB",
        "signal_delay_s": limits.warning_seconds,
        "array_parallelism": asked.array_limit,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **asked.extra},
    }
    parameters |= {name: getattr(asked, name) for name in PARSER_FLAGS if getattr(asked, name) is not None}
    if gpus:
        parameters["gpus_per_node"] = gpus
    if asked.setup:
        parameters["setup"] = list(asked.setup)
    return parameters


def submit(study: Study, facts: Mapping[Model, ModelFacts], *, say: Callable[[str], None] = print) -> dict[str, str]:
    """Submit every job that is not done and neither queued nor running; returns Slurm's job ids by job.

    Trainings first, as arrays; then predictions, evaluations and the report, each after what it needs has ended.

    Raises:
        UserError: Slurm does not take the jobs, or does not answer, or another process is submitting this study.
    """
    lock = Lock(study.folder / "locks" / "submitting.lock")
    if not lock.acquire():
        raise UserError(f"another process is submitting {study.file} just now: look at its status, then run again")
    try:
        try:
            queued = queued_jobs(study, patience=60)
        except SqueueError as error:
            raise UserError(f"squeue does not answer ({error}): run again when Slurm's controller runs") from None
        forgiven(study)
        states = StudyFiles(study, queued).states()
        return _submit(study, states, queued, limits_by_model(study, states, facts), say)
    finally:
        lock.release()


def _submit(
    study: Study,
    states: Mapping[str, State],
    queued: Mapping[str, str],
    limits: Mapping[Model, Limits],
    say: Callable[[str], None],
) -> dict[str, str]:
    before = submitted_jobs(study)
    alive = {job: before[job] for job in queued}  # Slurm jobs that later ones may wait for
    new: dict[str, str] = {}
    for kind in KINDS:
        wanted = [s.job for s in states.values() if s.job.kind == kind and s.name in (WAITING, INTERRUPTED)]
        for model in dict.fromkeys(job.model for job in wanted) if kind == "train" else [ALL_MODELS]:
            jobs = [job for job in wanted if model in (ALL_MODELS, job.model)]
            for some in _chunks(jobs, study.slurm.array_size):
                after = _all_numbers(study, some, {**alive, **new}, states)
                numbers = _submit_array(study, some, limits.get(model, longest(limits)), after)
                new |= numbers
                say(f"submitted {len(some)} {kind} jobs: Slurm job {next(iter(numbers.values())).partition('_')[0]}")
    if not new:
        say("nothing to submit: everything is done, running or queued")
    return new


def _all_numbers(
    study: Study, jobs: Sequence[Job], numbers: Mapping[str, str], states: Mapping[str, State]
) -> list[str]:
    """Slurm jobs (whole arrays) that these jobs wait for."""
    needed = {other.id for job in jobs for other in needs(study, job) if states[other.id].name != DONE}
    return sorted({numbers[name].partition("_")[0] for name in needed if name in numbers}, key=int)


def _submit_array(study: Study, jobs: Sequence[Job], limits: Limits, after: Sequence[str]) -> dict[str, str]:
    import submitit

    folder = study.folder / "slurm"
    parameters = parameters_of(study, jobs[0].kind, limits)
    if after:
        parameters["dependency"] = "afterany:" + ":".join(after)
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=limits.restarts)
    executor.update_parameters(**parameters)
    tasks = [SlurmTask(str(study.file), job.id, limits.restarts) for job in jobs]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with executor.batch():
                submitted = [executor.submit(task) for task in tasks]
    except Exception as error:  # submitit raises what sbatch says in several forms
        said = str(error).strip().splitlines()
        raise UserError(
            f"Slurm did not take the jobs ({said[-1] if said else error}): check [slurm] in {study.file}"
        ) from error
    numbers = {job.id: handle.job_id for job, handle in zip(jobs, submitted, strict=True)}
    with _submitted_file(study).open("a") as file:
        for job, number in numbers.items():
            file.write(json.dumps({"job": job, "slurm": number, "time": time.time()}) + "\n")
    return numbers
