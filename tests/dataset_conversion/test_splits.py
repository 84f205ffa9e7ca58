import pytest

from nnunetv2_levit.dataset_conversion.splits import cross_validation, group_counts, proportional_split

GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")


def patients(count):
    cases = {f"patient{i:03d}": [f"patient{i:03d}_frame01", f"patient{i:03d}_frame10"] for i in range(count)}
    return cases, {name: GROUPS[i % 5] for i, name in enumerate(cases)}


def split_patients(fold, cases):
    """Patients with cases on both sides of a fold."""
    train, val = set(fold["train"]), set(fold["val"])
    return [p for p, members in cases.items() if train.intersection(members) and val.intersection(members)]


def test_five_folds_by_patient_balanced_by_group():
    cases, groups = patients(80)
    folds = cross_validation(cases, groups)
    assert len(folds) == 5
    everything = sorted(case for members in cases.values() for case in members)
    assert sorted(case for fold in folds for case in fold["val"]) == everything
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == everything
        assert split_patients(fold, cases) == []
        counts = group_counts(fold["val"], cases, groups)
        assert set(counts) == set(GROUPS)
        assert set(counts.values()) <= {3, 4}
    assert cross_validation(cases, groups) == folds


@pytest.mark.parametrize(("count", "folds"), [(1, 0), (2, 2), (4, 4), (7, 5)])
def test_few_patients(count, folds):
    cases, groups = patients(count)
    result = cross_validation(cases, groups)
    assert len(result) == folds
    assert all(fold["val"] and fold["train"] and not split_patients(fold, cases) for fold in result)


def test_shares_of_a_paper():
    cases, groups = patients(100)
    parts = proportional_split(cases, groups, shares={"train": 0.7, "val": 0.1, "test": 0.2})
    assert {name: len(part) for name, part in parts.items()} == {"train": 140, "val": 20, "test": 40}
    assert len({case for part in parts.values() for case in part}) == 200
    assert group_counts(parts["test"], cases, groups) == dict.fromkeys(GROUPS, 4)
    assert group_counts(parts["val"], cases, groups) == dict.fromkeys(GROUPS, 2)
