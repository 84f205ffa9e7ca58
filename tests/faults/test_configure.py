"""What ``configure`` refuses: sizes, names and plans files that would make nnU-Net or a later call fail."""

import json
from pathlib import Path

import pytest

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.configurations import (
    MAX_BATCH_SIZE,
    MAX_NAME_LENGTH,
    NNUNET_CONFIGURATIONS,
    add_configuration,
)
from tests.support.faults import assert_refused, run, snapshot

STRIDES = [[1, 1], [2, 2], [2, 2]]
PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {"batch_size": 56, "patch_size": [256, 224], "architecture": {"arch_kwargs": {"strides": STRIDES}}},
        "3d_fullres": {"batch_size": 2, "patch_size": [16, 256, 224]},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "2d_sgd": {"inherits_from": "2d", "batch_size": 4, "data_identifier": "mine"},
    },
}
PATCH = ("--patch", "64", "96")


@pytest.fixture
def plans_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    path = tmp_path / "Dataset027_ACDC" / "nnUNetPlans.json"
    path.parent.mkdir()
    path.write_text(json.dumps(PLANS))
    return path


def set_configuration(path: Path, name: str, **entries: object) -> None:
    """Add or change entries of one configuration; an entry of None is removed."""
    plans = json.loads(path.read_text())
    configuration = {**plans["configurations"].get(name, {}), **entries}
    plans["configurations"][name] = {key: value for key, value in configuration.items() if value is not None}
    path.write_text(json.dumps(plans))


# flags, words of the sentence
BAD_CALLS = {
    **{
        f"name of nnU-Net's {name}": ((*PATCH, "--name", name), (name, "of nnU-Net's or of your own", "--name"))
        for name in NNUNET_CONFIGURATIONS
    },
    "name of a person's": ((*PATCH, "--name", "2d_sgd"), ("2d_sgd", "of your own")),
    **{
        f"name {name!r}": ((*PATCH, f"--name={name}"), (repr(name), "use letters a to z"))
        for name in ("", " ", "a b", "a/b", "a\\b", "..", "a..b", ".a", "-a", "a.", "_a", "größe", "a\nb", "a\0b")
    },
    "name with __": ((*PATCH, "--name", "a__b"), ("'a__b'", "'__'")),
    "name too long": ((*PATCH, "--name", "a" * 300), ("300 characters", str(MAX_NAME_LENGTH))),
    "plans identifier with a separator": ((*PATCH, "-p", "../Dataset028/nnUNetPlans"), ("plans identifier",)),
    "plans identifier empty": ((*PATCH, "-p", ""), ("the argument after -p is empty ('')",)),
    "plans identifier too long": ((*PATCH, "-p", "p" * 300), ("300 characters",)),
    "batch 0": ((*PATCH, "--batch", "0"), ("batch size 0", "below 2")),
    "batch -4": ((*PATCH, "--batch=-4"), ("batch size -4", "below 2")),
    "batch too large": ((*PATCH, "--batch", str(MAX_BATCH_SIZE + 1)), (str(MAX_BATCH_SIZE + 1), "smaller")),
    "patch 0": (("--patch", "0", "64"), ("0x64",)),
    "patch -64": (("--patch", "-64", "64"), ("-64x64",)),
    "3D base": ((*PATCH, "--from", "3d_cascade_fullres", "--name", "x"), ("3d_cascade_fullres is not 2D",)),
    "base empty": ((*PATCH, "--from", ""), ("the argument after --from is empty ('')",)),
}


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize("fault", BAD_CALLS)
def test_a_bad_call_changes_nothing(fault, overwrite, plans_file, capsys):
    flags, words = BAD_CALLS[fault]
    before = snapshot(plans_file.parent)
    assert_refused(run(capsys, "configure", "-d", "27", *flags, *overwrite), *words)
    assert snapshot(plans_file.parent) == before


# name of the changed configuration, its entries, words of the sentence
BAD_PLANS = {
    "inherits from itself": ("2d", {"inherits_from": "2d"}, ("2d", "inherit", "plan the dataset anew")),
    "circle of two": ("2d", {"inherits_from": "2d_sgd"}, ("2d", "inherit")),
    "parent missing": ("2d", {"inherits_from": "lost"}, ("2d inherits from 'lost', which is not there",)),
    "no patch_size": ("2d", {"patch_size": None}, ("2d has no patch_size",)),
    "patch_size of strings": ("2d", {"patch_size": ["256", "224"]}, ("2d", "patch_size")),
    "patch_size with NaN": ("2d", {"patch_size": [float("nan"), 64]}, ("2d", "patch_size")),
    "patch_size of one value": ("2d", {"patch_size": [64]}, ("2d", "patch_size")),
    "patch_size negative": ("2d", {"patch_size": [-64, 64]}, ("2d", "patch_size")),
    "patch_size a number": ("2d", {"patch_size": 64}, ("2d", "patch_size")),
    "no batch_size": ("2d", {"batch_size": None}, ("no batch_size", "--batch")),
    "strides of three axes": ("2d", {"architecture": {"arch_kwargs": {"strides": [[1, 2, 2]]}}}, ("strides",)),
    "batch_size no number": ("2d", {"batch_size": "many"}, ("batch_size",)),
    "strides of no stage": ("2d", {"architecture": {"arch_kwargs": {"strides": []}}}, ("strides",)),
    "strides of zero": ("2d", {"architecture": {"arch_kwargs": {"strides": [[1, 0]]}}}, ("strides",)),
    "strides ragged": ("2d", {"architecture": {"arch_kwargs": {"strides": [[1, 1], [2]]}}}, ("strides",)),
}


@pytest.mark.parametrize("fault", BAD_PLANS)
def test_bad_plans_are_named_and_kept(fault, plans_file, capsys):
    name, entries, words = BAD_PLANS[fault]
    set_configuration(plans_file, name, **entries)
    before = snapshot(plans_file.parent)
    assert_refused(run(capsys, "configure", "-d", "27", *PATCH), "nnUNetPlans.json", *words)
    assert snapshot(plans_file.parent) == before


def test_a_configuration_cannot_be_replaced_by_its_own_child(plans_file, capsys):
    for flags in (("--name", "parent"), ("--from", "parent", "--name", "child")):
        assert run(capsys, "configure", "-d", "27", *PATCH, *flags).code == 0
    before = snapshot(plans_file.parent)
    outcome = run(capsys, "configure", "-d", "27", *PATCH, "--from", "child", "--name", "parent", "--overwrite")
    assert_refused(outcome, "parent would inherit from itself (child -> parent -> 2d)")
    assert snapshot(plans_file.parent) == before


@pytest.mark.parametrize(
    ("patch_size", "batch_size"),
    [((64, 64, 64), None), ((float("nan"), 64), None), ((64.5, 64), None), ("64", None), ((64, 64), 2.5)],
)
def test_sizes_that_only_python_can_give_are_refused(patch_size, batch_size, plans_file):
    with pytest.raises(UserError, match="whole number"):
        add_configuration(dataset_id=27, base="2d", patch_size=patch_size, batch_size=batch_size)
