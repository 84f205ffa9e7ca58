"""What a device runs: one job of a study, in a process of its own.

    python -m nnunetv2_levit.study STUDY.toml JOB [--device cuda:0] [--device-lock FILE]

It takes the job's lock, looks whether there is anything left to do, writes all output to the job's log, and notes how
it ended. Exit code: 0 done, 75 stopped as asked, 76 another process has it (or the device), 2 or 1 failed.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from nnunetv2_levit.errors import EXIT_CODE, STOPPED, UserError, is_stop, sentence_of
from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.file import Study, job_environment, load_study
from nnunetv2_levit.study.jobs import Job, attempts_file, jobs_of, lock_file, log_file
from nnunetv2_levit.study.locks import Lock
from nnunetv2_levit.study.state import StudyFiles

TAKEN = 76
FAILED = 1

Task = Callable[[Study, Job, str], None]


def _train(study: Study, job: Job, device: str) -> None:
    from nnunetv2_levit.study.train import train

    train(study, job, device)


def _predict(study: Study, job: Job, device: str) -> None:
    from nnunetv2_levit.inference.batching import keep_freed_memory
    from nnunetv2_levit.study.products import predict

    if device == "cpu":
        keep_freed_memory()
    predict(study, job, device)


def _evaluate(study: Study, job: Job, device: str) -> None:
    from nnunetv2_levit.study.products import evaluate

    evaluate(study, job)


def _report(study: Study, job: Job, device: str) -> None:
    from nnunetv2_levit.study.study_report import write_study_report

    write_study_report(study)


TASKS: dict[str, Task] = {"train": _train, "predict": _predict, "evaluate": _evaluate, "report": _report}


def work_command(study: Study, job: Job, *, device: str | None = None, device_lock: Path | None = None) -> list[str]:
    """The words of the command that does a job."""
    words = [sys.executable, "-m", "nnunetv2_levit.study", str(study.file), job.id, "--executor", study.executor]
    if device is not None:
        words += ["--device", device]
    if device_lock is not None:
        words += ["--device-lock", str(device_lock)]
    return words


def _to_log(file: Path) -> None:
    """Send this process's output, and that of those that it starts, to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def do(study: Study, job: Job, device: str) -> int:
    """Run a job whose lock this process has; returns the exit code and notes it."""
    file = attempts_file(study, job)
    os.environ.update(job_environment(study, seed=job.seed))
    attempts.begin(file)
    try:
        TASKS[job.kind](study, job, device)
    except SystemExit as end:  # of a foreign trainer
        if end.code not in (None, 0):
            attempts.end(file, attempts.FAILED)  # why is in the log's last line
            return end.code if isinstance(end.code, int) else FAILED
    except Exception as error:
        if is_stop(error):
            attempts.end(file, attempts.STOPPED)
            return STOPPED
        if (sentence := sentence_of(error)) is not None:
            print(f"error: {sentence}", flush=True)
            attempts.end(file, attempts.FAILED, sentence)
            return EXIT_CODE
        traceback.print_exc()
        sys.stderr.flush()
        text = str(error).strip()
        why = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
        attempts.end(file, attempts.FAILED, why)
        return FAILED
    attempts.end(file, attempts.DONE)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the module."""
    parser = argparse.ArgumentParser(prog="python -m nnunetv2_levit.study")
    parser.add_argument("study", type=Path)
    parser.add_argument("job")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--executor", help="the one that started this, if not the file's")
    parser.add_argument("--device-lock", type=Path)
    parsed = parser.parse_args(arguments)
    try:
        study = load_study(parsed.study, executor=parsed.executor)
        job = jobs_of(study).get(parsed.job)
        if job is None:
            raise UserError(f"{study.file} has no job {parsed.job}: `study FILE plan --json` names them")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_CODE
    with ExitStack() as held:
        for path in (lock_file(study, job), parsed.device_lock):
            if path is not None:
                lock = Lock(path)
                if not lock.acquire():
                    if sys.stderr.isatty():  # else it is the job's log, which the other process writes
                        print(f"another process has {path}", file=sys.stderr, flush=True)
                    return TAKEN
                held.callback(lock.release)
        if is_done(study, job):
            return 0
        _to_log(log_file(study, job))
        return do(study, job, parsed.device)


def is_done(study: Study, job: Job) -> bool:
    """Whether there is nothing left to do; asked by the process that has the job's lock."""
    from nnunetv2_levit.study.jobs import needs

    files = StudyFiles(study)
    made = files.made(job)
    if job.kind == "report" or made is None:
        return False
    before = [files.made(other) for other in needs(study, job)]
    return all(other is not None and other <= made for other in before)
