"""Summaries over cases with bootstrap intervals over patients, and paired tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 5000
SEED = 0
LEVEL = 95.0


def _by_patient(values: np.ndarray, patients: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the defined ``values`` (cases, columns) of each patient: (patients, columns) both."""
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    counts = np.zeros_like(sums)
    defined = ~np.isnan(values)
    np.add.at(sums, index, np.where(defined, values, 0.0))
    np.add.at(counts, index, defined)
    return sums, counts


def _draws(count: int) -> np.ndarray:
    """How often each of ``count`` patients is drawn, for all resamples: (RESAMPLES, count)."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def bootstrap_interval(values: np.ndarray, patients: Sequence[str]) -> list[float] | None:
    """95 % percentile interval of the mean, patients resampled with all their cases.

    Args:
        values: (cases,) or (cases, columns), NaN where undefined; of several columns the mean of the columns' means.

    Returns:
        The two ends, or None with fewer than two patients that have a value.
    """
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    sums, counts = _by_patient(table, patients)
    filled = counts.any(axis=1)
    if filled.sum() < 2:
        return None
    sums, counts = sums[filled], counts[filled]
    weights = _draws(len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ sums) / (weights @ counts)
    # a structure that no drawn patient has leaves the mean of the others
    means = np.nanmean(means, axis=1) if table.shape[1] > 1 else means[:, 0]
    means = means[~np.isnan(means)]
    low, high = np.percentile(means, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return [float(low), float(high)]


def summarise(values: Sequence[float | None], patients: Sequence[str]) -> dict[str, Any]:
    """Count of defined values, mean, standard deviation (n − 1), median and interval; None where there is nothing."""
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    defined = array[~np.isnan(array)]
    if not defined.size:
        return {"n": 0, "mean": None, "sd": None, "median": None, "ci95": None}
    return {
        "n": int(defined.size),
        "mean": float(defined.mean()),
        "sd": float(defined.std(ddof=1)) if defined.size > 1 else None,
        "median": float(np.median(defined)),
        "ci95": bootstrap_interval(array, patients),
    }


def mean_of_structures(columns: Sequence[Sequence[float | None]], patients: Sequence[str]) -> dict[str, Any]:
    """Mean over structures of the means over cases (as papers average), with its interval.

    A structure without any value is left out; ``structures`` says how many were averaged.
    """
    table = np.array([[np.nan if v is None else v for v in column] for column in columns], dtype=float).T
    table = table[:, ~np.isnan(table).all(axis=0)]
    if not table.size:
        return {"structures": 0, "mean": None, "ci95": None}
    means = np.nanmean(table, axis=0)
    return {
        "structures": int(means.size),
        "mean": float(means.mean()),
        "ci95": bootstrap_interval(table, patients),
    }


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """``second`` minus ``first``, one value a patient each: mean, interval, and Wilcoxon's signed-rank test.

    The test is two-sided, with zero differences split (Pratt); its p is None with fewer than six patients, where it
    can't fall below 0.05, and 1 where all differences are zero.
    """
    from scipy.stats import wilcoxon

    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    result: dict[str, Any] = {
        "patients": int(difference.size),
        "mean": float(difference.mean()) if difference.size else None,
        "median": float(np.median(difference)) if difference.size else None,
        "ci95": bootstrap_interval(difference, [str(i) for i in range(difference.size)]) if difference.size else None,
        "higher": int((difference > 0).sum()),
        "lower": int((difference < 0).sum()),
        "wilcoxon_p": None,
    }
    if difference.size >= 6:
        zero = not np.any(difference)
        result["wilcoxon_p"] = 1.0 if zero else float(wilcoxon(difference, zero_method="pratt").pvalue)
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment for testing several differences; None stays None."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted
