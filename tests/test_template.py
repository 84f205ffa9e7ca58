"""The template folder keeps every rule, is twenty lines, and is known to nnU-Net once its entry points are."""

import ast
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from nnunetv2_levit.network_architectures import entry_points
from nnunetv2_levit.network_check.check import check_network
from nnunetv2_levit.trainers import naming
from tests.trainers.test_other_packages import declared  # noqa: F401

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEMPLATE = Path(__file__).resolve().parents[1] / "template"
PROJECT = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(TEMPLATE))
    yield
    for name in PROJECT["tool"]["setuptools"]["py-modules"]:
        sys.modules.pop(name, None)


def test_the_network_is_twenty_lines_and_keeps_every_rule():
    classes = [node for node in ast.parse((TEMPLATE / "my_network.py").read_text()).body if hasattr(node, "name")]
    assert sum(node.end_lineno - node.lineno + 1 for node in classes) <= 20
    result = check_network("my_network:MyNetwork", skip=("cost", "onnx", "compile"))
    assert result["kept"]
    assert result["adapter"] == []


def test_its_entry_points_make_trainers(declared):  # noqa: F811
    groups = {name: getattr(entry_points, name) for name in ("NETWORKS", "TRAINERS")}
    found = PROJECT["project"]["entry-points"]
    assert set(found) == set(groups.values())
    declared(**{name: found[group]["my_network"] for name, group in groups.items()})
    trainer = naming.trainer_class("MyNetworkTrainer_16_3epochs")
    assert trainer.num_epochs_override == 3

    class Configuration:
        patch_size = (40, 56)

    network = trainer.build_network_architecture(None, Configuration(), 2, 3, True)
    assert network(torch.randn(2, 2, 40, 56)).shape == (2, 3, 40, 56)
    assert EntryPoint(name="x", value="my_family:NETWORKS", group="x").load().networks
