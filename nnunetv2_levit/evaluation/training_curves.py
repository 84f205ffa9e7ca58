"""Training curves of one or several runs, read from nnU-Net's text logs (which exist whatever was checkpointed)."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.training_logs import EPOCH, PSEUDO_DICE, SCALARS, VALIDATION_DICE
from nnunetv2_levit.figures import draw_training_curves
from nnunetv2_levit.files import beside, check_writable, read_json, write_json, write_whole, written_together

WRAPPED = re.compile(r"np\.float\d+\(([^()]*)\)")
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
MOST_EPOCHS = 10**6


def _number(text: str, place: str) -> float | None:
    """A number of a log; None for NaN and infinity, which a diverged training logs and which are no JSON."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{place} has {text[:40]!r} where a number should be: restore the log, or remove it") from None
    return value if math.isfinite(value) else None


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{log} can't be read ({error.strerror or error}): restore the log, or remove it") from None


def _in_order(logs: Sequence[Path]) -> dict[Path, list[str]]:
    """The lines of each log, the oldest log first: by its first time stamp, as copies of files have other times."""
    lines = {log: _lines(log) for log in logs}
    begun = {log: next((match[0] for line in lines[log] if (match := STAMP.match(line))), "") for log in logs}
    return {log: lines[log] for log in sorted(logs, key=lambda log: (begun[log], log.lstat().st_mtime))}


def _read_log(
    log: Path, lines: Sequence[str], epochs: dict[int, dict[str, Any]], validation: float | None
) -> float | None:
    """Add a log's epochs; returns the mean validation Dice, that of earlier logs where nothing was trained since."""
    current: dict[str, Any] = {}
    first = True
    for number, line in enumerate(lines, 1):
        place = f"{log}, line {number},"
        if match := EPOCH.match(line):
            epoch = _number(match[1], place)
            if epoch is None or epoch > MOST_EPOCHS:
                raise UserError(f"{place} has an epoch above {MOST_EPOCHS}: restore the log, or remove it")
            if first:  # of this log: what an earlier one has from here on belongs to a training that was given up
                for given_up in [earlier for earlier in epochs if earlier >= epoch]:
                    del epochs[given_up]
                first, validation = False, None
            current = {}
            epochs[int(epoch)] = current
        elif match := PSEUDO_DICE.match(line):
            values = re.split(r"[,\s]+", WRAPPED.sub(r"\1", match[1]).strip())
            current["pseudo_dice"] = [_number(value, place) for value in values if value]
        elif match := VALIDATION_DICE.match(line):
            validation = _number(match[1], place)
        else:
            for name, pattern in SCALARS.items():
                if match := pattern.match(line):
                    current[name] = _number(match[1], place)
    return validation


def read_fold(folder: Path) -> dict[str, Any]:
    """Epochs of one fold from all its ``training_log_*.txt``; a resumed or new training replaces the epochs from
    its first one on.

    The pseudo Dice is nnU-Net's online estimate on random validation patches, one value a structure (None where it was
    neither there nor predicted); the mean validation Dice is that of the final sliding-window validation, if it ran.

    Losses and other numbers that a log lacks, or that are NaN or infinite in it, are None.

    Raises:
        UserError: no logs, logs without a finished epoch, or words where numbers should be.
    """
    logs = list(folder.glob("training_log_*.txt"))
    if not logs:
        raise UserError(f"{folder} holds no training_log_*.txt: give a fold's folder, such as .../fold_0")
    epochs: dict[int, dict[str, Any]] = {}
    validation = None
    for log, lines in _in_order(logs).items():
        validation = _read_log(log, lines, epochs, validation)
    nothing: dict[str, Any] = {**dict.fromkeys(SCALARS), "pseudo_dice": []}
    finished = [
        {"epoch": number, **nothing, **epochs[number]} for number in sorted(epochs) if "seconds" in epochs[number]
    ]
    if not finished:
        raise UserError(f"the logs in {folder} hold no finished epoch yet: wait for the first one")
    if len({len(epoch["pseudo_dice"]) for epoch in finished} - {0}) > 1:
        raise UserError(f"the logs in {folder} differ in the number of structures: remove those of another training")
    return {"fold": folder.name, "run": folder.parent.name, "epochs": finished, "mean_validation_dice": validation}


def write_curves(folders: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """Write ``output`` (JSON) and, beside it, the same as a PNG: both, or none.

    Raises:
        UserError: no or broken logs, or files that can't be written.
    """
    (picture,) = beside(output, ".png")
    for path in (output, picture):
        check_writable(path)
    runs = [read_fold(folder) for folder in folders]
    dataset, labels = folders[0].parent / "dataset.json", {}
    if dataset.exists():
        labels = read_json(dataset, what="nnU-Net's dataset.json", schema=schemas.DATASET)["labels"]
    structures = [name for name in labels if name != "background"]
    with written_together(output.parent) as partial:
        write_json(partial / output.name, runs)
        write_whole(partial / picture.name, lambda path: draw_training_curves(runs, structures=structures, target=path))
    return runs
