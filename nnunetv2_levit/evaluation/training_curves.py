"""Training curves of one or several runs, read from nnU-Net's text logs (which exist whatever was checkpointed)."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import write_json, write_whole

STAMP = r"^\S+ \S+: "
EPOCH = re.compile(STAMP + r"Epoch (\d+)\s*$")
PSEUDO_DICE = re.compile(STAMP + r"Pseudo dice \[(.*)\]")
VALIDATION_DICE = re.compile(STAMP + r"Mean Validation Dice:\s+(\S+)")
NUMBER = re.compile(r"(?<!\w)(?:-?\d+\.?\d*(?:e[+-]?\d+)?|nan)")
SCALARS = {
    "learning_rate": re.compile(STAMP + r"Current learning rate: (\S+)"),
    "train_loss": re.compile(STAMP + r"train_loss (\S+)"),
    "val_loss": re.compile(STAMP + r"val_loss (\S+)"),
    "seconds": re.compile(STAMP + r"Epoch time: (\S+) s"),
}


def read_fold(folder: Path) -> dict[str, Any]:
    """Epochs of one fold from all its ``training_log_*.txt``; a resumed epoch replaces the interrupted one.

    The pseudo Dice is nnU-Net's online estimate on random validation patches, one value a structure (None where it was
    neither there nor predicted); the mean validation Dice is that of the final sliding-window validation, if it ran.

    Raises:
        UserError: no logs, or logs without a finished epoch.
    """
    logs = sorted(folder.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise UserError(f"{folder} holds no training_log_*.txt: give a fold's folder, such as .../fold_0")
    epochs: dict[int, dict[str, Any]] = {}
    validation = None
    for log in logs:
        current: dict[str, Any] = {}
        for line in log.read_text(errors="replace").splitlines():
            if match := EPOCH.match(line):
                current = {}
                epochs[int(match[1])] = current
            elif match := PSEUDO_DICE.match(line):
                values = [float(v) for v in NUMBER.findall(re.sub(r"np\.float\d+", "", match[1]))]
                current["pseudo_dice"] = [None if math.isnan(v) else v for v in values]  # NaN is no JSON
            elif match := VALIDATION_DICE.match(line):
                validation = float(match[1])
            else:
                for name, pattern in SCALARS.items():
                    if match := pattern.match(line):
                        current[name] = float(match[1])
    finished = [{"epoch": number, **epochs[number]} for number in sorted(epochs) if "seconds" in epochs[number]]
    if not finished:
        raise UserError(f"the logs in {folder} hold no finished epoch yet: wait for the first one")
    return {"fold": folder.name, "run": folder.parent.name, "epochs": finished, "mean_validation_dice": validation}


def draw(runs: Sequence[dict[str, Any]], target: Path, structures: Sequence[str] = ()) -> None:
    """Losses and mean pseudo Dice of the runs over the epochs, as a PNG; structures apart where there is one run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    for index, run in enumerate(runs):
        colour, name = f"C{index}", f"{run['run']}, {run['fold']}"
        epochs = [epoch["epoch"] + 1 for epoch in run["epochs"]]
        left.plot(epochs, [epoch["train_loss"] for epoch in run["epochs"]], color=colour, label=name)
        left.plot(epochs, [epoch["val_loss"] for epoch in run["epochs"]], color=colour, linestyle="--")
        dice = np.array([epoch["pseudo_dice"] for epoch in run["epochs"]], dtype=float)
        means = np.nanmean(dice, axis=1)
        right.plot(epochs, means, color=colour, linewidth=2, label=f"{name}: mean" if len(runs) == 1 else name)
        if len(runs) == 1:
            for structure, values in enumerate(dice.T):
                label = structures[structure] if structure < len(structures) else f"structure {structure + 1}"
                right.plot(epochs, values, color=f"C{structure + 1}", linewidth=1, label=label)
    left.set(xlabel="epoch", ylabel="loss (solid: training, dashed: validation)")
    right.set(xlabel="epoch", ylabel="pseudo Dice on validation patches", ylim=(0, 1))
    for axis in (left, right):
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    plt.close(figure)


def report(folders: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """Write ``output`` (JSON) and, beside it, the same as a PNG."""
    runs = [read_fold(folder) for folder in folders]
    dataset = folders[0].parent / "dataset.json"
    labels = json.loads(dataset.read_text())["labels"] if dataset.is_file() else {}
    write_json(output, runs)
    structures = [name for name in labels if name != "background"]
    write_whole(output.with_suffix(".png"), lambda path: draw(runs, path, structures))
    return runs
