"""What of nnU-Net the package relies on: every row holds for the installed version, and nothing is used without one."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import nnunetv2_levit
from nnunetv2_levit.inference.predictor import BatchedPredictor
from nnunetv2_levit.nnunet.private_names import PREDICTOR, ROWS, TRAINER, Row, Use, located, what_changed
from nnunetv2_levit.nnunet.replacements import uninstall
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from nnunetv2_levit.trainers.plans_network import PlansNetworkTrainer

PACKAGE = Path(nnunetv2_levit.__file__).parent
NAMES = {row.name for row in ROWS}


@pytest.fixture(autouse=True)
def nothing_replaced():
    uninstall()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.use.name.lower()}")
def test_nnunet_is_as_the_row_says(row):
    assert what_changed(row) is None


def _row(name, use):
    (row,) = (row for row in ROWS if row.name == name and row.use is use)
    return row


def _renamed(self, file):
    raise NotImplementedError


def _step(self, batch):
    return {"loss": 0}


def _save(self, filename):
    raise NotImplementedError


CHANGES = {
    "a method that is gone": ("_build_loss", Use.OVERRIDDEN, None, "has no"),
    "a parameter by another name": ("load_checkpoint", Use.OVERRIDDEN, _renamed, "has the parameters (self, file) now"),
    "another rule": ("train_step", Use.COPIED, _step, "is another"),
    "another key": ("save_checkpoint", Use.OVERRIDDEN, _save, "has no `'network_weights':`"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_nnunet_is_named(change, monkeypatch):
    name, use, replacement, words = CHANGES[change]
    if replacement is None:
        monkeypatch.delattr(nnUNetTrainer, name)
    else:
        monkeypatch.setattr(nnUNetTrainer, name, replacement)
    row = _row(f"{TRAINER}.{name}", use)
    said = what_changed(row)
    assert f"{TRAINER}.{name}" in said
    assert words in said
    assert row.reason in said


def test_the_other_name_of_load_checkpoints_parameter_is_accepted(monkeypatch):
    def load_checkpoint(self, checkpoint):
        raise NotImplementedError

    monkeypatch.setattr(nnUNetTrainer, "load_checkpoint", load_checkpoint)
    assert what_changed(_row(f"{TRAINER}.load_checkpoint", Use.OVERRIDDEN)) is None


def test_a_module_that_is_gone_is_named():
    said = what_changed(Row("nnunetv2.gone.function", Use.CALLED, "for a test"))
    assert "has no nnunetv2.gone.function any more" in said
    assert "for a test" in said


def _imported_from_nnunet():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nnunetv2":
                for alias in node.names:
                    yield path, f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "nnunetv2" for alias in node.names), path


def test_everything_that_is_imported_has_a_row():
    found = list(_imported_from_nnunet())
    assert len(found) > 10
    modules = {row.name.rsplit(".", 1)[0] for row in ROWS}
    missing = [(str(path), name) for path, name in found if name not in NAMES and name not in modules]
    assert missing == []


def _attributes(our_class):
    """Names that a class reads or sets of itself, or overrides."""
    (tree,) = ast.parse(inspect.getsource(our_class)).body
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls", "super()"):
            names.add(node.attr)
    return {name for name in names if not name.startswith("__")}


@pytest.mark.parametrize(
    ("ours", "theirs", "path", "least"),
    [
        (HybridTrainer, nnUNetTrainer, TRAINER, 10),
        (PlansNetworkTrainer, nnUNetTrainer, TRAINER, 4),
        (BatchedPredictor, nnUNetPredictor, PREDICTOR, 10),
    ],
)
def test_everything_that_a_subclass_uses_of_its_base_has_a_row(ours, theirs, path, least):
    source = inspect.getsource(theirs)
    used = {name for name in _attributes(ours) if re.search(rf"\bself\.{name}\b|def {name}\(", source)}
    assert len(used) > least
    said = " ".join(piece for row in ROWS if row.name == f"{path}.__init__" for piece in row.says)
    missing = [name for name in used if f"{path}.{name}" not in NAMES and not re.search(rf"\bself\.{name}\b", said)]
    assert missing == []


def test_replaced_names_are_those_that_install_replaces():
    from nnunetv2_levit.nnunet.replacements import install

    replaced = [row.name for row in ROWS if row.use is Use.REPLACED]
    before = {name: located(name) for name in replaced}
    install()
    assert all(located(name) is not before[name] for name in replaced)
    uninstall()
    assert {name: located(name) for name in replaced} == before
