"""Paired comparison of several evaluated models on the same patients."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnunetv2_levit
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import HIGHER_IS_BETTER, PERCENTAGES
from nnunetv2_levit.evaluation.evaluate import load_evaluation
from nnunetv2_levit.evaluation.statistics import LEVEL, RESAMPLES, holm, paired_difference
from nnunetv2_levit.evaluation.tables import heading, markdown_table, number
from nnunetv2_levit.files import write_json, write_text, write_whole

METRICS = ("dice", "hd95", "asd", "nsd")
MEAN = "mean"


def _entry_values(evaluation: dict[str, Any], metric: str) -> dict[tuple[str, str], dict[str, float | None]]:
    """Values by (patient, case), by structure."""
    return {
        (entry["patient"], entry["case"]): {
            structure: entry["metrics"][structure][metric] for structure in evaluation["structures"]
        }
        for entry in evaluation["cases"]
    }


def pooled(name: str, evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One model from the evaluations of its folds (other cases each) or seeds (the same cases, averaged).

    Raises:
        UserError: the evaluations differ in structures, unit or tolerance, or overlap in part of their cases.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for key in ("structures", "unit", "tolerance"):
            if other[key] != first[key]:
                raise UserError(f"the results pooled as {name} differ in {key}: evaluate them alike")
    sets = [frozenset(entry["case"] for entry in evaluation["cases"]) for evaluation in evaluations]
    overlap = any(a & b for i, a in enumerate(sets) for b in sets[i + 1 :])
    if overlap and len(set(sets)) > 1:
        raise UserError(
            f"the results pooled as {name} share some of their cases: pool seeds (all cases the same) or folds "
            "(no case the same)"
        )
    values = {}
    for metric in METRICS:
        merged: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        for evaluation in evaluations:
            for key, by_structure in _entry_values(evaluation, metric).items():
                for structure, value in by_structure.items():
                    merged.setdefault(key, {}).setdefault(structure, []).append(value)
        values[metric] = {
            key: {structure: _mean(several) for structure, several in by_structure.items()}
            for key, by_structure in merged.items()
        }
    kind = "seeds" if overlap else "folds or parts"
    return {
        "name": name,
        "results": len(evaluations),
        "pooled_as": kind if len(evaluations) > 1 else None,
        "structures": list(first["structures"]),
        "unit": first["unit"],
        "tolerance": first["tolerance"],
        "dimensions": first["dimensions"],
        "values": values,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    # a seed without a value (a structure it missed has no distance) leaves no average worth pairing
    return float(np.mean(defined)) if len(defined) == len(values) and defined else None


def _patient_means(model: dict[str, Any], metric: str, structure: str) -> dict[str, float]:
    """Mean over each patient's cases; of all structures where ``structure`` is the mean, where all have a value."""
    by_patient: dict[str, list[float]] = {}
    for (patient, _), by_structure in model["values"][metric].items():
        if structure == MEAN:
            several = list(by_structure.values())
            value = None if any(v is None for v in several) else float(np.mean(several))
        else:
            value = by_structure[structure]
        by_patient.setdefault(patient, [])
        if value is not None:
            by_patient[patient].append(value)
    return {patient: float(np.mean(values)) for patient, values in by_patient.items() if values}


def compare(models: Sequence[tuple[str, Sequence[Path]]]) -> dict[str, Any]:
    """Differences of every further model from the first one, per structure and metric.

    Args:
        models: name and results (files or folders written by `evaluate`) of each; several are pooled.

    Raises:
        UserError: fewer than two models, or other cases or structures than the first one's.
    """
    if len(models) < 2:
        raise UserError("give at least two results to compare")
    if len({name for name, _ in models}) < len(models):
        raise UserError("two results have the same name: name them, as in NAME=FOLDER")
    loaded = [pooled(name, [load_evaluation(path) for path in paths]) for name, paths in models]
    reference = loaded[0]
    for other in loaded[1:]:
        for key in ("structures", "unit", "tolerance"):
            if other[key] != reference[key]:
                raise UserError(f"{other['name']} and {reference['name']} differ in {key}: evaluate them alike")
        ours, theirs = (set(model["values"]["dice"]) for model in (reference, other))
        if ours != theirs:
            case = min(case for _, case in ours ^ theirs)
            raise UserError(
                f"{other['name']} and {reference['name']} were not evaluated on the same cases (such as {case}): "
                "compare them on the cases that both have"
            )
    structures = [*reference["structures"], MEAN]
    comparisons = [
        {
            "model": other["name"],
            "reference": reference["name"],
            "metric": metric,
            "structure": structure,
            **_difference(reference, other, metric, structure),
        }
        for other in loaded[1:]
        for metric in METRICS
        for structure in structures
    ]
    for metric in METRICS:
        rows = [row for row in comparisons if row["metric"] == metric]
        for row, p in zip(rows, holm([row["wilcoxon_p"] for row in rows]), strict=True):
            row["holm_p"] = p
    return {
        "kind": "comparison",
        "made_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
        "reference": reference["name"],
        "unit": reference["unit"],
        "tolerance": reference["tolerance"],
        "dimensions": reference["dimensions"],
        "interval": f"{LEVEL:.0f} % percentile bootstrap, {RESAMPLES} resamples of patients",
        "test": "Wilcoxon signed-rank, two-sided, one value a patient; holm_p adjusts for all tests of a metric",
        "models": [{key: model[key] for key in ("name", "results", "pooled_as")} for model in loaded],
        "patient_values": {
            model["name"]: {
                metric: {structure: _patient_means(model, metric, structure) for structure in structures}
                for metric in METRICS
            }
            for model in loaded
        },
        "comparisons": comparisons,
    }


def _difference(reference: dict[str, Any], other: dict[str, Any], metric: str, structure: str) -> dict[str, Any]:
    first, second = (_patient_means(model, metric, structure) for model in (reference, other))
    both = sorted(first.keys() & second.keys())
    means = [float(np.mean([v[p] for p in both])) if both else None for v in (first, second)]
    result = paired_difference([first[p] for p in both], [second[p] for p in both])
    everyone = {patient for patient, _ in reference["values"][metric]}
    return {
        "reference_mean": means[0],
        "model_mean": means[1],
        **result,
        "patients_without_a_pair": sorted(everyone - set(both)),
    }


def comparison_table(result: dict[str, Any]) -> str:
    """The table of all differences, best read from the last column."""
    facts = (result["unit"], result["tolerance"], result["dimensions"])
    rows = []
    for row in result["comparisons"]:
        percent = row["metric"] in PERCENTAGES
        interval = "–"
        if row["ci95"] is not None:
            interval = "[" + ", ".join(number(end, percent=percent, sign=True) for end in row["ci95"]) + "]"
        missing = row["patients_without_a_pair"]
        rows.append(
            [
                row["model"],
                heading(row["metric"], *facts) + (" ↑" if HIGHER_IS_BETTER[row["metric"]] else " ↓"),
                row["structure"],
                number(row["reference_mean"], percent=percent),
                number(row["model_mean"], percent=percent),
                number(row["mean"], percent=percent, sign=True),
                interval,
                _p(row["wilcoxon_p"]),
                _p(row["holm_p"]),
                f"{row['patients']}" + (f" ({len(missing)} without a value in both)" if missing else ""),
            ]
        )
    head = ["model", "metric", "structure", result["reference"], "model's", "difference", "95 % interval", "p"]
    return markdown_table([*head, "p (Holm)", "patients"], rows)


def comparison_markdown(result: dict[str, Any]) -> str:
    """The table of all differences, and what its words mean."""
    models = "; ".join(
        f"{model['name']}" + (f" ({model['results']} {model['pooled_as']} pooled)" if model["pooled_as"] else "")
        for model in result["models"]
    )
    return "\n".join(
        [
            f"# Compared with {result['reference']}",
            "",
            f"Models: {models}. Differences are model minus {result['reference']}, one value a patient (its cases "
            f"averaged). Interval: {result['interval']}. p: {result['test']}; a dash where fewer than six patients "
            "make a test pointless.",
            "",
            comparison_table(result),
        ]
    )


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def comparison_csv(result: dict[str, Any]) -> str:
    """One line a model, metric and structure; raw values."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    keys = ("model", "reference", "metric", "structure", "patients", "reference_mean", "model_mean", "mean", "median")
    counts_and_tests = ("higher", "lower", "wilcoxon_p", "holm_p")
    head = [*keys, "ci95_low", "ci95_high", *counts_and_tests, "patients_without_a_pair"]
    writer.writerow(head)
    for row in result["comparisons"]:
        low, high = row["ci95"] or (None, None)
        cells = [*(row[key] for key in keys), low, high, *(row[key] for key in counts_and_tests)]
        writer.writerow(["" if cell is None else cell for cell in cells] + [" ".join(row["patients_without_a_pair"])])
    return buffer.getvalue()


def write_comparison(result: dict[str, Any], folder: Path) -> None:
    """``comparison.json`` and, made from it, ``.md``, ``.csv`` and ``.png``."""
    from nnunetv2_levit.evaluation.comparison_plot import draw_comparison

    write_json(folder / "comparison.json", result)
    write_text(folder / "comparison.md", comparison_markdown(result))
    write_text(folder / "comparison.csv", comparison_csv(result))
    write_whole(folder / "comparison.png", lambda target: draw_comparison(result, target))
