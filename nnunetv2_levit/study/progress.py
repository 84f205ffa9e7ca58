"""How far a training is, from the files that nnU-Net writes; only the end of its log is read."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nnunetv2_levit.evaluation.training_logs import EPOCH, PSEUDO_DICE, SCALARS

TAIL = 16 * 1024
FACTS = "study_training.json"
CHECKPOINTS = ("checkpoint_latest.pth", "checkpoint_best.pth")
FINAL = "checkpoint_final.pth"
NUMBER = re.compile(r"(?<!\w)(?:-?\d+\.?\d*(?:e[+-]?\d+)?|nan)")


@dataclass(frozen=True)
class Progress:
    """What the log of a training says last; None for what it does not say (yet)."""

    epochs_done: int = 0
    pseudo_dice: float | None = None
    seconds_per_epoch: float | None = None


def tail(file: Path, size: int = TAIL) -> str:
    """The last characters of a text file; empty where there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - size))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_line(file: Path) -> str:
    """The last line of a log that says something, such as an exception's."""
    lines = [line.strip() for line in tail(file).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def read_progress(logs: Sequence[Path]) -> Progress:
    """From the newest of nnU-Net's ``training_log_*.txt`` that has a finished epoch."""
    if len(logs) > 1:
        logs = sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True)
    for log in logs:
        epoch, done, dice = None, None, None
        seconds: list[float] = []
        for line in tail(log).splitlines():
            if match := EPOCH.match(line):
                epoch = int(match[1])
            elif match := PSEUDO_DICE.match(line):
                dice = _mean(match[1])
            elif match := SCALARS["seconds"].match(line):
                seconds.append(float(match[1]))
                done = epoch if epoch is not None else done
        if done is not None:
            return Progress(done + 1, dice, median(seconds))
    return Progress()


def _mean(text: str) -> float | None:
    values = [float(v) for v in NUMBER.findall(re.sub(r"np\.float\d+", "", text))]
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else None


def read_facts(fold: Path) -> dict[str, Any]:
    """What the launcher noted about a training: parameters, epochs, seed; empty for one that it did not start."""
    try:
        return json.loads((fold / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def validated(fold: Path) -> bool:
    """Whether the final validation has written its summary, and to its end."""
    return tail(fold / "validation" / "summary.json", 8).rstrip().endswith("\n}")
