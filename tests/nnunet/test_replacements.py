"""What is installed into nnU-Net, by whom, and how a program ends; and that nothing else has an effect on it."""

import ast
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunetv2_levit
from nnunetv2_levit.errors import NonFiniteLossError, sentence_of
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from nnunetv2_levit.nnunet.replacements import install, uninstall
from nnunetv2_levit.nnunet.trainer_classes import find_trainer_class
from nnunetv2_levit.trainers.naming import trainer_class
from tests.conftest import nnunet_environment
from tests.inference.model_folders import write_model_folder
from tests.support.nnunet_programs import run_program

TRAINER, DATASET = "LeViTUNetTrainer_128s", "Dataset027_ACDC"


@pytest.fixture(autouse=True)
def nothing_replaced():
    uninstall()
    yield
    uninstall()


def _state():
    """Everything global that could be changed: nnU-Net's modules and classes, environment, random state, threads."""
    modules = {
        name: dict(vars(module))
        for name, module in sys.modules.items()
        if name.split(".")[0] == "nnunetv2" and module is not None
    }
    return {
        "modules": {name: {key: id(value) for key, value in content.items()} for name, content in modules.items()},
        "trainer": {key: id(value) for key, value in vars(nnUNetTrainer).items()},
        "environment": dict(os.environ),
        "random": torch.random.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "excepthook": id(sys.excepthook),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def _preprocessed(root):
    """nnU-Net's folders with plans and description of a dataset, as far as a trainer's constructor reads them."""
    folder = root / "preprocessed" / DATASET
    write_model_folder(folder, folds=())
    (folder / "plans.json").rename(folder / "nnUNetPlans.json")
    for name in ("raw", "results"):
        (root / name).mkdir()
    return folder


def test_building_a_trainer_has_no_effect_on_anything_global(tmp_path, monkeypatch):
    folder = _preprocessed(tmp_path)
    for name, value in nnunet_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    description = json.loads((folder / "dataset.json").read_text())
    before = _state()
    trainer = trainer_class(f"{TRAINER}_7epochs")(plans, "2d", 0, description, torch.device("cpu"))
    assert trainer.num_epochs == 7
    assert _state() == before


def test_our_own_look_up_leaves_no_trace():
    find_trainer_class(TRAINER)  # which imports all of nnU-Net's trainers
    before = _state()
    assert find_trainer_class(TRAINER) is trainer_class(TRAINER)
    assert _state() == before


def test_nnunets_look_up_installs_once(monkeypatch):
    monkeypatch.setenv(VARIABLE, str(plugin_folder()))
    loader, hook = run_training.load_pretrained_weights, sys.excepthook
    recursive_find_trainer_class_by_name(TRAINER)
    installed = run_training.load_pretrained_weights, sys.excepthook
    assert installed[0] is not loader
    assert installed[1] is not hook
    recursive_find_trainer_class_by_name(f"{TRAINER}_ds")
    install()
    assert (run_training.load_pretrained_weights, sys.excepthook) == installed
    uninstall()
    assert (run_training.load_pretrained_weights, sys.excepthook) == (loader, hook)


def test_plain_nnunet_ends_with_one_sentence_and_exit_code_2(tmp_path):
    """nnUNetv2_train itself: what a trainer raises reaches nobody before Python's own end of the program."""
    _preprocessed(tmp_path)
    done = run_program(
        *("nnUNetv2_train", 27, "2d", 0, "-tr", f"{TRAINER}_1000epochs", "-device", "cpu"),
        environment=nnunet_environment(tmp_path),
    )
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout
    (sentence,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert "by a second name" in sentence


def _diverges(_):
    raise NonFiniteLossError("the loss became nan in epoch 3, batch 1")


def test_a_sentence_comes_through_from_a_process_of_several_gpus():
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as raised:
        torch.multiprocessing.spawn(_diverges, nprocs=1)
    assert sentence_of(raised.value) == "the loss became nan in epoch 3, batch 1"


def test_only_the_command_line_and_the_plugin_end_a_program():
    package = Path(nnunetv2_levit.__file__).parent
    allowed = (package / "cli", package / "nnunet" / "plugin")
    # programs too: what a queue starts for each job of a study (foreign trainers may end it, which it notes), and what
    # submitit runs within a Slurm job, which has no result where Slurm starts the job again
    workers = [package / "study" / name for name in ("__main__.py", "work.py", "slurm.py")]
    ending = {"SystemExit", "sys.exit", "exit", "quit", "os._exit"}
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        if path not in workers and not any(folder in path.parents for folder in allowed)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in ending
    ]
    assert found == []


def test_the_room_imports_nothing_above_it():
    package = Path(nnunetv2_levit.__file__).parent
    allowed = (
        "errors",
        "files",
        "image_files",
        "json_checks",
        "nnunet",
        "schemas",
        "network_architectures",
        "any_network",
    )
    found = []
    for path in sorted((package / "nnunet").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nnunetv2_levit":
                rooms = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                found += [f"{path.name}: {room}" for room in rooms if room not in allowed]
    assert found == []
