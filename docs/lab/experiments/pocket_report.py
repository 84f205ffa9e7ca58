"""What the pocket benchmark has measured: a table on the screen, and the curves of the trainings as a PNG.

    python docs/lab/experiments/pocket_report.py --fold 1    # of the runs to choose by
    python docs/lab/experiments/pocket_report.py --final     # of the runs to report

Rows are those of results/pocket/runs.jsonl, which `pocket_benchmark.py run` writes. With `--final` there is a second
table, of paired differences from nnU-Net's U-Net under its own trainer and under our recipe, on the folds that both
have. It is made by `compare` from the evaluations in results/pocket/final, and kept as differences.json.
"""

import argparse
import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import fmean

from pocket_prepare import REFERENCE, RESULTS

TITLES = {
    "nnUNet": "nnU-Net's U-Net",
    "HybridRecipe": "nnU-Net's U-Net",
    "LeViTUNet": "LeViT-UNet",
    "UNet2022": "UNet-2022",
}
AGAINST = ("nnUNetTrainer", "HybridRecipeTrainer_nomirror_bf16")
HEAD = ("folds", "trainer", "minutes", "iterations", "s / iteration", "runs", "DSC", "RV", "MYO", "LV", "HD95 (mm)")


def runs(*, final: bool, fold: int | None) -> dict[tuple, list[dict]]:
    """Rows by trainer and budget, of one fold or all; of a run that was repeated, the last."""
    latest = {}
    for line in (RESULTS / "runs.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["final"] == final and fold in (None, row["fold"]):
            latest[row["trainer"], row["budget_minutes"], row["epochs"], row["fold"], row["seed"]] = row
    groups = defaultdict(list)
    for (trainer, budget, *_), row in latest.items():
        groups[trainer, budget].append(row)
    return groups


def by_folds(groups: dict[tuple, list[dict]]) -> dict[tuple, list[dict]]:
    """Rows by budget, folds and trainer: each fold alone, as some have harder cases, and all of a trainer's."""
    result = {}
    for (trainer, budget), rows in groups.items():
        folds = sorted({row["fold"] for row in rows})
        for some in [(fold,) for fold in folds] + ([tuple(folds)] if len(folds) > 1 else []):
            result[budget, some, trainer] = [row for row in rows if row["fold"] in some]
    return result


def table(groups: dict[tuple, list[dict]]) -> str:
    """One row for each budget, folds and trainer, means over folds and seeds, the best first."""
    rows_of = by_folds(groups)
    order = sorted(
        rows_of, key=lambda key: (key[0] or 0, len(key[1]), key[1], -fmean(row["dice"]["mean"] for row in rows_of[key]))
    )
    lines = [HEAD, ["---"] * len(HEAD)]
    for key in order:
        (budget, folds, trainer), rows = key, rows_of[key]
        dice = [f"{100 * fmean(row['dice'][name] for row in rows):.2f}" for name in ("mean", "RV", "MYO", "LV")]
        distances = [row["hd95"]["mean"] for row in rows if row["hd95"]["mean"] is not None]
        cells = [", ".join(map(str, folds)), f"`{trainer}`", f"{budget:g}" if budget else "–", rows[0]["iterations"]]
        cells += [rows[0].get("seconds_per_iteration", "–"), len(rows), *dice]
        lines.append([*cells, f"{fmean(distances):.1f}" if distances else "–"])
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def differences(groups: dict[tuple, list[dict]]) -> list[dict]:
    """Differences in mean DSC and HD95 of each trainer from those it is set against, with intervals over patients."""
    from nnunetv2_levit import compare

    found = []
    for (reference, budget), (trainer, other_budget) in product(groups, groups):
        if reference not in AGAINST or trainer in (reference, AGAINST[0]) or budget != other_budget:
            continue
        names = (reference, trainer)
        files = [evaluations(name, budget, groups[name, budget]) for name in names]
        shared = sorted(files[0].keys() & files[1].keys())
        if not shared:
            continue
        result = compare({name: [of[run] for run in shared] for name, of in zip(names, files, strict=True)})
        found += [
            {"folds": sorted({fold for fold, _ in shared}), "budget_minutes": budget} | row
            for row in result["comparisons"]
            if row["structure"] == "mean" and row["metric"] in ("dice", "hd95")
        ]
    return found


def evaluations(trainer: str, budget: float | None, rows: list[dict]) -> dict[tuple[int, int], Path]:
    """Files of a trainer's evaluations by fold and seed."""
    length = f"{budget:g}min" if budget else rows[0]["epochs"]
    runs_of = [(row["fold"], row["seed"]) for row in rows]
    return {(fold, seed): RESULTS / "final" / f"{trainer}_{length}_f{fold}_s{seed}.json" for fold, seed in runs_of}


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


def draw_curves(groups: dict[tuple, list[dict]], target: Path) -> None:
    """Mean pseudo Dice over the time of training: a panel a family, with nnU-Net's U-Net in each."""
    from nnunetv2_levit.figures import draw_learning_curves

    reference = {key: rows for key, rows in groups.items() if key[0] in (REFERENCE, *AGAINST)}
    panels: dict[str, dict[str, tuple]] = defaultdict(dict)
    for title in dict.fromkeys(title_of(trainer) for trainer, _ in groups):
        members = {key: rows for key, rows in groups.items() if title_of(key[0]) == title}
        for (trainer, budget), rows in (reference | members).items():
            shortest = min(len(row["curve"]) for row in rows)
            values = [fmean(row["curve"][epoch] for row in rows) for epoch in range(shortest)]
            length = budget or rows[0]["epochs"]
            times = [length * (epoch + 1) / shortest for epoch in range(shortest)]
            panels[title][f"{trainer}, {budget:g} min" if budget else trainer] = times, values
    draw_learning_curves(panels, time_label="minutes of training (epochs where there is no budget)", target=target)


def title_of(trainer: str) -> str:
    """The panel of a trainer's curve."""
    return TITLES.get(trainer.partition("Trainer")[0], "other families")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true", help="the runs to report, not those to choose by")
    parser.add_argument("--fold", type=int, help="of this fold alone")
    arguments = parser.parse_args()
    groups = runs(final=arguments.final, fold=arguments.fold)
    print(table(groups))
    if arguments.final:
        rows = differences(groups)
        (RESULTS / "differences.json").write_text(json.dumps(rows, indent=1) + "\n")
        print(f"\n{differences_table(rows)}")
    draw_curves(groups, RESULTS / ("curves_final.png" if arguments.final else "curves.png"))


if __name__ == "__main__":
    main()
