"""Damaged JSON of every kind through the command that reads it; the long form is docs/lab/experiments/json_fuzz.py."""

import json

import pytest

from tests.support.json_fuzz import FAULTS, OPERATIONS, baseline, make, outcome, variables

KINDS = (
    "plans.json, predict",
    "dataset.json, predict",
    "dataset.json, evaluate",
    "dataset.json, inspect",
    "conversion.json, evaluate",
    "splits_final.json, evaluate -m",
    "plans.json, evaluate -m",
    "plans.json, configure",
    "evaluation.json, compare",
    "evaluation.json, report",
    "benchmark, report",
    "dataset.json of the Decathlon, convert",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def folders_of_nnunet(root, monkeypatch):
    for name, value in variables(root).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def kinds(root):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(root).items():
            patch.setenv(name, value)
        return make(root)


def test_every_kind_is_tried(kinds):
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_a_sentence_or_changes_nothing(kinds, name):
    kind = kinds[name]
    expected = baseline(kind)
    document = json.loads(kind.file.read_text())
    # one of each operation
    outcomes = [outcome(kind, document, number, expected) for number in range(len(OPERATIONS))]
    assert [entry for entry in outcomes if entry["outcome"] in FAULTS] == []
    assert sum(entry["outcome"] == "refused" for entry in outcomes) >= 5
