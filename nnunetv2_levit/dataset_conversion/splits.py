"""Splits into folds that keep each patient's cases together and balance the patients' groups."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

Fold = dict[str, list[str]]
SEED = 12345  # nnU-Net's


def _cases_of(patients: Sequence[str], cases: dict[str, list[str]]) -> list[str]:
    return sorted(case for patient in patients for case in cases[patient])


def cross_validation(
    cases: dict[str, list[str]], groups: dict[str, str], *, folds: int = 5, seed: int = SEED
) -> list[Fold]:
    """Folds for nnU-Net's ``splits_final.json`` from ``cases`` by patient and ``groups`` by patient.

    Stratified by group where some group has a patient for each fold; with fewer patients than folds, a fold for each.
    """
    patients = sorted(cases)
    folds = min(folds, len(patients))
    if folds < 2:
        return []
    labels = [groups[patient] for patient in patients]
    stratified = max(labels.count(label) for label in labels) >= folds
    splitter = (StratifiedKFold if stratified else KFold)(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a group with fewer patients than folds can't be in every fold
        parts = list(splitter.split(patients, labels))
    return [
        {
            "train": _cases_of([patients[i] for i in train], cases),
            "val": _cases_of([patients[i] for i in val], cases),
        }
        for train, val in parts
    ]


def proportional_split(
    cases: dict[str, list[str]], groups: dict[str, str], *, shares: dict[str, float], seed: int = SEED
) -> dict[str, list[str]]:
    """Cases of each named share (shares sum to 1), by whole patients, stratified by group where the counts allow it."""
    remaining = sorted(cases)
    total = len(remaining)
    result: dict[str, list[str]] = {}
    names = list(shares)
    for name in names[:0:-1]:
        count = max(1, round(shares[name] * total))
        labels = [groups[patient] for patient in remaining]
        smallest = min(labels.count(label) for label in set(labels))
        feasible = smallest >= 2 and count >= len(set(labels)) and len(remaining) - count >= len(set(labels))
        kept, taken = train_test_split(
            remaining, test_size=count, random_state=seed, stratify=labels if feasible else None
        )
        result[name] = _cases_of(taken, cases)
        remaining = sorted(kept)
    result[names[0]] = _cases_of(remaining, cases)
    return {name: result[name] for name in names}


def group_counts(names: Sequence[str], cases: dict[str, list[str]], groups: dict[str, str]) -> dict[str, int]:
    """Patients of each group among the cases ``names``."""
    wanted = set(names)
    present = [groups[patient] for patient, members in cases.items() if wanted.intersection(members)]
    values, counts = np.unique(present, return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}


def fixed_split(cases: dict[str, list[str]], validation: frozenset[str]) -> Fold:
    """One fold whose validation cases are listed by identifier; a listed case that is absent is simply not there."""
    everything = _cases_of(sorted(cases), cases)
    return {
        "train": [case for case in everything if case not in validation],
        "val": [case for case in everything if case in validation],
    }
