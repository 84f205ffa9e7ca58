"""What the pocket benchmark has measured: a table on the screen, and the curves of the trainings as a PNG.

    python docs/lab/experiments/pocket_report.py --fold 1                 # of the runs to choose by
    python docs/lab/experiments/pocket_report.py --final                  # of the runs to report
    python docs/lab/experiments/pocket_report.py --final --device cuda    # of those on a GPU (`pocket_gpu.sh`)

Rows are those of results/pocket/runs.jsonl, which `pocket_benchmark.py run` writes. With `--final` there is a second
table, of paired differences from nnU-Net's U-Net under its own trainer and under our recipe, on the folds that both
have. It is made by `compare` from the evaluations in results/pocket/final, and kept as differences.json
(differences_cuda.json). Files of final runs are of all folds: with `--fold` there are only the tables.
"""

import argparse
import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pocket_prepare import REFERENCE, RESULTS, evaluation_file, run_name

TITLES = {
    "nnUNet": "nnU-Net's U-Net",
    "HybridRecipe": "nnU-Net's U-Net",
    "LeViTUNet": "LeViT-UNet",
    "UNet2022": "UNet-2022",
}
# by device: nnU-Net's own trainer, and our recipe on its network
AGAINST = {
    "cpu": ("nnUNetTrainer", "HybridRecipeTrainer_nomirror_bf16"),
    "cuda": ("nnUNetTrainer@2d", "HybridRecipeTrainer@2d"),
}
HEAD = ("folds", "trainer", "minutes", "iterations", "s / iteration", "runs", "DSC", "RV", "MYO", "LV", "HD95 (mm)")


class Group(NamedTuple):
    """Rows that may be averaged: of one trainer (@ its configuration), and of one length."""

    trainer: str
    budget: float | None  # minutes
    epochs: int | None  # where there is no budget

    @property
    def length(self) -> tuple:
        return self.budget or 0, self.epochs or 0

    @property
    def length_in_names(self) -> str:
        return f"{self.budget:g}min" if self.budget else str(self.epochs)


def runs(*, final: bool, fold: int | None, device: str = "cpu") -> dict[Group, list[dict]]:
    """Rows of one fold or all, by trainer and length; of a run that was repeated, the last."""
    latest = {}
    for line in (RESULTS / "runs.jsonl").read_text().splitlines():
        row = json.loads(line)
        if (row["final"], row.get("device_type", "cpu")) == (final, device) and fold in (None, row["fold"]):
            latest[row["trainer"], row["budget_minutes"], row["epochs"], row["fold"], row["seed"]] = row
    groups = defaultdict(list)
    for (trainer, budget, epochs, *_), row in latest.items():
        groups[Group(trainer, budget, None if budget else epochs)].append(row)
    return groups


def by_folds(groups: dict[Group, list[dict]]) -> dict[tuple, list[dict]]:
    """Rows by group and folds: each fold alone, as some have harder cases, and all of a trainer's."""
    result = {}
    for group, rows in groups.items():
        folds = sorted({row["fold"] for row in rows})
        for some in [(fold,) for fold in folds] + ([tuple(folds)] if len(folds) > 1 else []):
            result[group, some] = [row for row in rows if row["fold"] in some]
    return result


def table(groups: dict[Group, list[dict]]) -> str:
    """One row for each length, folds and trainer, means over folds and seeds, the best first."""
    rows_of = by_folds(groups)
    order = sorted(
        rows_of,
        key=lambda key: (key[0].length, len(key[1]), key[1], -fmean(row["dice"]["mean"] for row in rows_of[key])),
    )
    on_gpu = any("peak_memory_mib" in row for rows in groups.values() for row in rows)
    head = [*HEAD, *(("s / epoch", "peak MiB") if on_gpu else ())]
    lines = [head, ["---"] * len(head)]
    for key in order:
        (group, folds), rows = key, rows_of[key]
        dice = [f"{100 * fmean(row['dice'][name] for row in rows):.2f}" for name in ("mean", "RV", "MYO", "LV")]
        distances = [row["hd95"]["mean"] for row in rows if row["hd95"]["mean"] is not None]
        minutes = f"{group.budget:g}" if group.budget else "–"
        cells = [", ".join(map(str, folds)), f"`{group.trainer}`", minutes, rows[0]["iterations"]]
        cells += [rows[0].get("seconds_per_iteration", "–"), len(rows), *dice]
        cells.append(f"{fmean(distances):.1f}" if distances else "–")
        if on_gpu:
            cells += [f"{fmean(row['epoch_seconds'] for row in rows):.1f}", max(row["peak_memory_mib"] for row in rows)]
        lines.append(cells)
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def differences(groups: dict[Group, list[dict]], device: str = "cpu") -> list[dict]:
    """Differences in mean DSC and HD95 of each trainer from those it is set against, with intervals over patients."""
    from nnunetv2_levit import compare

    found = []
    for reference, other in product(groups, groups):
        if reference.trainer not in AGAINST[device] or other.trainer in (reference.trainer, AGAINST[device][0]):
            continue
        if reference.length != other.length:
            continue
        files = {group.trainer: evaluations(group, groups[group]) for group in (reference, other)}
        shared = sorted(files[reference.trainer].keys() & files[other.trainer].keys())
        if not shared:
            continue
        result = compare({name: [of[run] for run in shared] for name, of in files.items()})
        facts = {"folds": sorted({fold for fold, _ in shared}), "budget_minutes": reference.budget}
        if reference.epochs:
            facts["epochs"] = reference.epochs
        found += [
            facts | row
            for row in result["comparisons"]
            if row["structure"] == "mean" and row["metric"] in ("dice", "hd95")
        ]
    return found


def evaluations(group: Group, rows: list[dict]) -> dict[tuple[int, int], Path]:
    """Files of a trainer's evaluations by fold and seed."""
    runs_of = [(row["fold"], row["seed"]) for row in rows]
    return {run: evaluation_file(RESULTS, run_name(group.trainer, group.length_in_names, *run)) for run in runs_of}


def differences_table(rows: list[dict]) -> str:
    """One row for each pair of trainers, the DSC in points."""
    lines = [("trainer", "from", "folds", "patients", "DSC (points)", "better in", "HD95 (mm)")]
    lines.append(("---",) * len(lines[0]))
    by_metric = [[row for row in rows if row["metric"] == metric] for metric in ("dice", "hd95")]
    for dice, distance in zip(*by_metric, strict=True):
        cells = (f"`{dice['model']}`", f"`{dice['reference']}`", ", ".join(map(str, dice["folds"])), dice["patients"])
        lines.append((*cells, with_interval(dice, 100, 2), dice["higher"], with_interval(distance, 1, 1)))
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def with_interval(row: dict, factor: float, digits: int) -> str:
    """A mean difference with its 95 % interval."""
    mean, low, high = (f"{factor * value:+.{digits}f}" for value in (row["mean"], *row["ci95"]))
    return f"{mean} [{low}, {high}]"


def draw_curves(groups: dict[Group, list[dict]], target: Path, device: str = "cpu") -> None:
    """Mean pseudo Dice over the time of training: a panel a family, with nnU-Net's U-Net in each."""
    from nnunetv2_levit.figures import draw_learning_curves

    reference = {group: rows for group, rows in groups.items() if group.trainer in (REFERENCE, *AGAINST[device])}
    panels: dict[str, dict[str, tuple]] = defaultdict(dict)
    for title in dict.fromkeys(title_of(group.trainer) for group in groups):
        members = {group: rows for group, rows in groups.items() if title_of(group.trainer) == title}
        for group, rows in (reference | members).items():
            shortest = min(len(row["curve"]) for row in rows)
            values = [fmean(row["curve"][epoch] for row in rows) for epoch in range(shortest)]
            length = group.budget or group.epochs
            times = [length * (epoch + 1) / shortest for epoch in range(shortest)]
            unit = "min" if group.budget else "epochs"
            panels[title][f"{group.trainer}, {length:g} {unit}"] = times, values
    draw_learning_curves(panels, time_label="minutes of training (epochs where there is no budget)", target=target)


def title_of(trainer: str) -> str:
    """The panel of a trainer's curve."""
    return TITLES.get(trainer.partition("Trainer")[0], "other families")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true", help="the runs to report, not those to choose by")
    parser.add_argument("--fold", type=int, help="of this fold alone")
    parser.add_argument("--device", choices=AGAINST, default="cpu", help="where they were trained (default cpu)")
    arguments = parser.parse_args()
    device = arguments.device
    groups = runs(final=arguments.final, fold=arguments.fold, device=device)
    ending = "" if device == "cpu" else f"_{device}"
    print(table(groups))
    if arguments.final:
        rows = differences(groups, device)
        print(f"\n{differences_table(rows)}")
        if arguments.fold is not None:
            return
        (RESULTS / f"differences{ending}.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw_curves(groups, RESULTS / f"{'curves_final' if arguments.final else 'curves'}{ending}.png", device)


if __name__ == "__main__":
    main()
