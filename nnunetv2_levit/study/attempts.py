"""A job's attempts: one line at the start and one at the end of each, so that a killed one has no end."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit.study.locks import Holder

DONE, STOPPED, FAILED, FORGIVEN = "done", "stopped", "failed", "forgiven"
MOST_WITHOUT_PROGRESS = 3
"""Attempts in a row that end by a kill before anything was saved; then the job counts as failed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt; ``outcome`` is None where it is running or was killed."""

    started: float
    host: str
    pid: int
    slurm_job: str | None
    ended: float | None = None
    outcome: str | None = None
    reason: str | None = None
    progress: bool = False


def _append(file: Path, entry: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")


def begin(file: Path) -> None:
    """Note that this process starts an attempt."""
    holder = asdict(Holder.this_process())
    _append(file, {"event": "start", "started": time.time(), **{k: v for k, v in holder.items() if k != "since"}})


def saved(file: Path) -> None:
    """Note that the running attempt has saved something that the next one goes on from."""
    _append(file, {"event": "saved"})


def end(file: Path, outcome: str, reason: str | None = None) -> None:
    """Note how the running attempt ended."""
    _append(file, {"event": "end", "ended": time.time(), "outcome": outcome, "reason": reason})


def again(file: Path) -> None:
    """Let a job that failed be tried again."""
    _append(file, {"event": "again"})


def attempts(file: Path) -> list[Attempt]:
    """All attempts so far; a line that a killed process did not finish is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    result: list[dict[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line)
            event = entry.pop("event")
        except (ValueError, KeyError, AttributeError):
            continue
        if event == "start":
            result.append(entry)
        elif result and event == "saved":
            result[-1]["progress"] = True
        elif result and event == "again":
            result[-1]["outcome"] = FORGIVEN
        elif result:
            result[-1].update(entry)
    return [Attempt(**entry) for entry in result]


def without_progress(several: list[Attempt]) -> int:
    """How many of the last attempts were killed before they saved anything."""
    count = 0
    for attempt in reversed(several):
        if attempt.outcome is not None or attempt.progress:
            break
        count += 1
    return count
