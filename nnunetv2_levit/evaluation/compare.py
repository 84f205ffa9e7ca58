"""Paired comparison of several evaluated models on the same patients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnunetv2_levit
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import over_seeds
from nnunetv2_levit.evaluation.statistics import LEVEL, RESAMPLES, holm, paired_difference
from nnunetv2_levit.evaluation.stored import load_evaluation
from nnunetv2_levit.figures import draw_comparison
from nnunetv2_levit.files import check_writable, write_json, write_text, write_whole, written_together
from nnunetv2_levit.tables import PERCENTAGES, comparison_csv, comparison_markdown, metric_heading

METRICS = ("dice", "hd95", "asd", "nsd")
DRAWN_METRICS = ("dice", "hd95")
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
    """One model from the evaluations of its folds (other cases each), seeds (the same cases, averaged), or both.

    Raises:
        UserError: the evaluations differ in structures, unit or tolerance, or have some cases more often than others.
    """
    first = evaluations[0]
    if MEAN in first["structures"]:
        raise UserError(f"{name} has a structure called {MEAN!r}, as the mean over structures is here: rename it")
    for other in evaluations[1:]:
        for key in ("structures", "unit", "tolerance"):
            if other[key] != first[key]:
                raise UserError(f"the results pooled as {name} differ in {key}: evaluate them alike")
    sets = [frozenset(entry["case"] for entry in evaluation["cases"]) for evaluation in evaluations]
    times = set(Counter(case for cases in sets for case in cases).values())
    if len(times) > 1:
        raise UserError(
            f"the results pooled as {name} share some of their cases: pool seeds (all cases the same), folds (no case "
            "the same), or the same seeds of every fold"
        )
    _check_patients(name, evaluations)
    values: dict[str, dict[tuple[str, str], dict[str, float | None]]] = {}
    for metric in METRICS:
        merged: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        for evaluation in evaluations:
            for patient_case, by_structure in _entry_values(evaluation, metric).items():
                for structure, value in by_structure.items():
                    merged.setdefault(patient_case, {}).setdefault(structure, []).append(value)
        values[metric] = {
            patient_case: {structure: over_seeds(metric, several) for structure, several in by_structure.items()}
            for patient_case, by_structure in merged.items()
        }
    kind = "folds or parts"
    if times != {1}:
        kind = "seeds" if len(set(sets)) == 1 else "folds and seeds"
    return {
        "name": name,
        "results": len(evaluations),
        "pooled_as": kind if len(evaluations) > 1 else None,
        "structures": list(first["structures"]),
        "unit": first["unit"],
        "tolerance": first["tolerance"],
        "dimensions": first["dimensions"],
        "cases": [{"case": case, "patient": patient} for patient, case in values[METRICS[0]]],
        "values": values,
    }


def _check_patients(name: str, evaluations: Sequence[dict[str, Any]]) -> None:
    """Raise a UserError where a case is of two patients: seeds would count as further patients."""
    patients: dict[str, str] = {}
    for evaluation in evaluations:
        for entry in evaluation["cases"]:
            known = patients.setdefault(entry["case"], entry["patient"])
            if known != entry["patient"]:
                raise UserError(
                    f"the results of {name} give the case {entry['case']} to the patients {known} and "
                    f"{entry['patient']}: evaluate all with the same dataset folder or --patient"
                )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    # a structure without a value (one that was missed has no distance) leaves no average worth pairing
    return float(np.mean(defined)) if len(defined) == len(values) and defined else None


def _case_values(model: dict[str, Any], metric: str, structure: str) -> dict[tuple[str, str], float]:
    """The value of each (patient, case) that has one; of all structures where ``structure`` is the mean."""
    result = {}
    for patient_case, by_structure in model["values"][metric].items():
        value = _mean(list(by_structure.values())) if structure == MEAN else by_structure[structure]
        if value is not None:
            result[patient_case] = value
    return result


def _patient_means(values: Sequence[Mapping[tuple[str, str], float]]) -> list[dict[str, float]]:
    """For each model, the mean over each patient's cases, of the cases in which all of these models have a value.

    With the others a model that misses a structure in a patient's harder frame would seem to have the smaller distance.
    """
    shared = sorted(set.intersection(*(set(of_model) for of_model in values)))
    result = []
    for of_model in values:
        by_patient: dict[str, list[float]] = {}
        for patient, case in shared:
            by_patient.setdefault(patient, []).append(of_model[patient, case])
        result.append({patient: float(np.mean(several)) for patient, several in by_patient.items()})
    return result


Result = str | Path | dict[str, Any]


def compare(models: Mapping[str, Result | Sequence[Result]], *, output: str | Path | None = None) -> dict[str, Any]:
    """Differences of every further model from the first one, per structure and metric.

    Args:
        models: from the model's name to its result: what `evaluate` returned, or the file or folder that it wrote;
            several results of a model (folds or seeds) are pooled.
        output: folder to write the comparison to, as JSON, Markdown, CSV and PNG.

    Returns:
        A dictionary of plain values: ``comparisons``, a row for each model, metric and structure.

    Raises:
        UserError: fewer than two models, or other cases or structures than the first one's.
    """
    if output is not None:
        check_writable(Path(output), folder=True)
    if len(models) < 2:
        raise UserError("give at least two results to compare")
    results = {name: _several(given) for name, given in models.items()}
    _check_distinct(results)
    loaded = [pooled(name, [_evaluation(result) for result in several]) for name, several in results.items()]
    reference = loaded[0]
    for other in loaded[1:]:
        for key in ("structures", "unit", "tolerance"):
            if other[key] != reference[key]:
                raise UserError(f"{other['name']} and {reference['name']} differ in {key}: evaluate them alike")
        _check_patients(f"{reference['name']} and {other['name']}", [reference, other])
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
    comparison = {
        "kind": "comparison",
        "made_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
        "reference": reference["name"],
        "unit": reference["unit"],
        "tolerance": reference["tolerance"],
        "dimensions": reference["dimensions"],
        "interval": f"{LEVEL:.0f} % percentile bootstrap, {RESAMPLES} resamples of patients",
        "test": "Wilcoxon signed-rank, two-sided, one value a patient; holm_p adjusts for all tests of a metric",
        "models": [{key: model[key] for key in ("name", "results", "pooled_as")} for model in loaded],
        "patient_values": _values_by_model(loaded, structures),
        "comparisons": comparisons,
    }
    if output is not None:
        write_comparison(comparison, Path(output))
    return comparison


def _several(given: Result | Sequence[Result]) -> list[Path | dict[str, Any]]:
    """The results of one model, as a list."""
    results: list[Result] = [given] if isinstance(given, str | Path | dict) else list(given)
    return [Path(result) if isinstance(result, str) else result for result in results]


def _evaluation(result: Path | dict[str, Any]) -> dict[str, Any]:
    return result if isinstance(result, dict) else load_evaluation(result)


def _check_distinct(models: Mapping[str, Sequence[Path | dict[str, Any]]]) -> None:
    """Raise UserError where a file is pooled twice, or two models are the same files."""
    owner: dict[frozenset[Path], str] = {}
    for name, results in models.items():
        paths = [result for result in results if isinstance(result, Path)]
        if len(paths) < len(results):
            continue
        files = [(path / "evaluation.json" if path.is_dir() else path).resolve() for path in paths]
        for path, file in zip(paths, files, strict=True):
            if files.count(file) > 1:
                raise UserError(f"{path} is given twice for {name}: name each result once")
        other = owner.setdefault(frozenset(files), name)
        if other != name:
            raise UserError(f"{name} and {other} are the same result, {paths[0]}: give different ones")


def _difference(reference: dict[str, Any], other: dict[str, Any], metric: str, structure: str) -> dict[str, Any]:
    values = [_case_values(model, metric, structure) for model in (reference, other)]
    of_reference, of_other = _patient_means(values)
    first, second = list(of_reference.values()), list(of_other.values())
    without = reference["values"][metric].keys() - (values[0].keys() & values[1].keys())
    return {
        "reference_mean": float(np.mean(first)) if first else None,
        "model_mean": float(np.mean(second)) if second else None,
        **paired_difference(first, second),
        "cases_without_a_pair": sorted(case for _, case in without),
        "patients_without_a_pair": sorted({patient for patient, _ in without} - of_reference.keys()),
    }


def _values_by_model(models: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """Values by model, metric, structure and patient, over the cases in which every model has one."""
    result: dict[str, Any] = {model["name"]: {metric: {} for metric in METRICS} for model in models}
    for metric in METRICS:
        for structure in structures:
            means = _patient_means([_case_values(model, metric, structure) for model in models])
            for model, of_patients in zip(models, means, strict=True):
                result[model["name"]][metric][structure] = of_patients
    return result


def write_comparison(result: dict[str, Any], folder: Path) -> None:
    """``comparison.json`` and, made from it, ``.md``, ``.csv`` and ``.png``: all four, or none."""
    with written_together(folder) as partial:
        write_json(partial / "comparison.json", result)
        write_text(partial / "comparison.md", comparison_markdown(result))
        write_text(partial / "comparison.csv", comparison_csv(result))
        write_whole(partial / "comparison.png", lambda target: _draw(result, target))


def _draw(result: dict[str, Any], target: Path) -> None:
    """The values of the patients that every model has one of, for DSC and HD95."""
    models = [model["name"] for model in result["models"]]
    panels = {
        metric_heading(metric, result): {
            structure: _as_drawn([result["patient_values"][name][metric][structure] for name in models], metric)
            for structure in result["patient_values"][models[0]][metric]
        }
        for metric in DRAWN_METRICS
    }
    footnote = "a point is a patient; grey lines join the same patient's values"
    draw_comparison(panels, models=models, footnote=footnote, target=target)


def _as_drawn(by_model: Sequence[dict[str, float]], metric: str) -> np.ndarray:
    """Values (models, patients), fractions as per cent."""
    values = np.array([[of_model[patient] for patient in sorted(of_model)] for of_model in by_model], dtype=float)
    return 100 * values if metric in PERCENTAGES else values
