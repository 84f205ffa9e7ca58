"""Sentences, tables and pictures of the study's page."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2_levit.evaluation.case_metrics import EMPTY_RULES
from nnunetv2_levit.evaluation.html_page import Picture
from nnunetv2_levit.figures import draw_training_curves
from nnunetv2_levit.files import write_whole
from nnunetv2_levit.study.file import METRICS, Study
from nnunetv2_levit.tables import PERCENTAGES, interval, metric_heading, number

TITLES = {"test": "Test images", "validation": "Validation, all folds"}
ANSWERED = ("dice", "hd95")
LEVEL = 0.05
FEWEST_PATIENTS = 6  # as `statistics.paired_difference`
CURVES_IN_A_PICTURE = 10
MOST_PICTURES = 12


def lowered(markdown: str) -> str:
    """The same text with its headings one level lower."""
    return "\n".join("#" + line if line.startswith("#") else line for line in markdown.split("\n"))


def answer_sentence(comparison: dict[str, Any] | None, evaluations: Sequence[dict[str, Any]], *, reference: str) -> str:
    """What differs from the reference beyond chance, in one sentence."""
    if comparison is None or comparison["reference"] != reference:
        present = ", ".join(evaluation["name"] for evaluation in evaluations)
        return f"Nothing can be said against the reference {reference}: only {present} has all its results."
    rows = [row for row in comparison["comparisons"] if row["structure"] == "mean" and row["metric"] in ANSWERED]
    patients = max(row["patients"] for row in rows)
    if patients < FEWEST_PATIENTS:
        return (
            f"No difference from {reference} can be told from chance: {patients} patients have a value in both, and a "
            f"test needs {FEWEST_PATIENTS}."
        )
    clear = [row for row in rows if row["holm_p"] is not None and row["holm_p"] < LEVEL]
    if not clear:
        return (
            f"No model differs from {reference} beyond chance in mean DSC or HD95 ({patients} patients, Holm's p at "
            f"least {LEVEL:g})."
        )
    findings = []
    for row in clear:
        percent = row["metric"] in PERCENTAGES
        change = number(row["mean"], percent=percent, sign=True)
        findings.append(
            f"{row['model']} in mean {metric_heading(row['metric'], comparison)} by {change} "
            f"{interval(row['ci95'], percent=percent, sign=True)}"
        )
    rest = "; nothing else does" if len(clear) < len(rows) else ""
    return (
        f"Beyond chance (Holm's p < {LEVEL:g}, {patients} patients) these differ from {reference}: "
        + "; ".join(findings)
        + f"{rest}."
    )


def _draw_curves(runs: Sequence[dict[str, Any]], target: Path) -> None:
    draw_training_curves(runs, structures=[], target=target)


def curve_parts(study: Study, curves: dict[str, Any], folder: Path) -> list[str | Picture]:
    """Training curves, some runs a picture."""
    parts: list[str | Picture] = ["## Training\n"]
    runs = list(curves.values())
    if len(runs) > (most := CURVES_IN_A_PICTURE * MOST_PICTURES):
        parts.append(f"The first {most} of {len(runs)} trainings; all are in curves.json beside this page.\n")
        runs = runs[:most]
    for start in range(0, len(runs), CURVES_IN_A_PICTURE):
        some = runs[start : start + CURVES_IN_A_PICTURE]
        picture = folder / f"curves_{start // CURVES_IN_A_PICTURE + 1}.png"
        write_whole(picture, partial(_draw_curves, some))
        parts.append(Picture(picture, "Losses and pseudo Dice, read from nnU-Net's logs."))
    return parts


def definitions(evaluation: dict[str, Any], study: Study) -> str:
    """What every word of the page means, once."""
    seeds = "one seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds, each case's values averaged over them"
    lines = [
        "## Definitions",
        "",
        *(f"- {metric_heading(metric, evaluation)}: {evaluation['definitions'][metric]}." for metric in METRICS),
        *(f"- A structure that is {kind}: {rule}." for kind, rule in EMPTY_RULES.items()),
        "- Mean: over structures, of the means over cases.",
        f"- [Interval]: {evaluation['interval']}.",
        "- p: Wilcoxon's signed-rank test, two-sided, one value a patient; Holm's p is adjusted for all tests of a "
        "metric.",
        f"- Models: trained on {study.dataset}, plans {study.plans}, "
        f"folds {', '.join(map(str, study.folds))}; {seeds}.",
        "- Validation, all folds: every case predicted by the fold that was not trained on it. Test images: predicted "
        "by all folds together, and no fold was trained on them.",
        "- Parameters: of the network as trained. Seconds an epoch: the median over all trainings, on the machines "
        "that they ran on.",
    ]
    return "\n".join(lines) + "\n"
