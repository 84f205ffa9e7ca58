"""What a study is doing: a table for a person, the same as data."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import fold_folder, log_file
from nnunetv2_levit.study.progress import last_line, read_facts
from nnunetv2_levit.study.state import DONE, FAILED, INTERRUPTED, RUNNING, STATES, State, StudyFiles

MOST_SECONDS = 86400.0  # between two looks of `watch`


@dataclass(frozen=True)
class StudyStatus:
    """All jobs' rows, and what could not be asked (``remarks``)."""

    study: Study
    states: dict[str, State]
    rows: list[dict[str, Any]]
    remarks: list[str]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        counted = Counter(state.name for state in self.states.values())
        return {name: counted[name] for name in STATES if counted[name]}

    def as_data(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return {"study": self.study.name, "counts": self.counts(), "jobs": self.rows, "remarks": self.remarks}

    def text(self, *, everything: bool = False) -> str:
        """A table of what is neither done nor waiting (or of everything), and a line of totals."""
        shown = [row for row in self.rows if everything or row["state"] not in (DONE, "waiting", "blocked")]
        lines = _aligned([_HEAD, *(_cells(row) for row in shown)]) if shown else []
        for row in shown:
            if row["state"] == FAILED:
                lines.append(f"{row['job']} failed: {row['why']} (log: {row['log']})")
        total = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        return "\n".join([*lines, f"{self.study.name}: {total}", *self.remarks])


_HEAD = ["job", "state", "epoch", "pseudo Dice", "s/epoch", "time left", "where"]


def _cells(row: dict[str, Any]) -> list[str]:
    def text(value: Any, form: str) -> str:
        return "" if value is None else format(value, form)

    epoch = "" if row["epoch"] is None else f"{row['epoch']}/{row['epochs'] or '?'}"
    left = "" if row["seconds_left"] is None else _duration(row["seconds_left"])
    cells = [row["job"], row["state"], epoch, text(row["pseudo_dice"], ".3f"), text(row["seconds_per_epoch"], ".1f")]
    return [*cells, left, row["where"] or ""]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(study: Study, state: State) -> dict[str, Any]:
    progress, epochs = state.progress, None
    if state.job.kind == "train" and progress.epochs_done:
        epochs = read_facts(fold_folder(study, state.job)).get("epochs")
    left = None
    if epochs and progress.seconds_per_epoch is not None and state.name in (RUNNING, INTERRUPTED):
        left = max(0, epochs - progress.epochs_done) * progress.seconds_per_epoch
    log = log_file(study, state.job)
    return {
        "job": state.job.id,
        "state": state.name,
        "epoch": progress.epochs_done or None,
        "epochs": epochs,
        "pseudo_dice": progress.pseudo_dice,
        "seconds_per_epoch": progress.seconds_per_epoch,
        "seconds_left": left,
        "where": state.where,
        "why": state.why,
        "attempts": state.attempts,
        "log": str(log),
        "last_line": last_line(log) if state.name == FAILED else None,
    }


def study_status(study: Study) -> StudyStatus:
    """Read everything once."""
    queued, remarks = {}, []
    if (study.folder / "slurm").is_dir():
        from nnunetv2_levit.study.slurm import SqueueError, queued_jobs

        try:
            queued = queued_jobs(study)
        except SqueueError as error:
            remarks.append(f"squeue did not answer ({error}): what waits in Slurm's queue is shown as waiting")
    states = StudyFiles(study, queued).states()
    return StudyStatus(study, states, [_row(study, state) for state in states.values()], remarks)


def watch(study: Study, *, seconds: float = 10.0) -> None:
    """Print the status again and again until nothing runs or waits, or Ctrl-C.

    Raises:
        UserError: no such waiting time.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise UserError(f"--watch {seconds:g} is no waiting time: give seconds, up to {MOST_SECONDS:g}")
    while True:
        now = study_status(study)
        print(
            "\x1b[2J\x1b[H" + now.text() + f"\n{time.strftime('%H:%M:%S')}, every {seconds:g} s, Ctrl-C ends",
            flush=True,
        )
        if all(state.name in (DONE, FAILED, "blocked") for state in now.states.values()):
            return
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            return
