"""``truncate`` and ``export``: models that are broken or hostile, and flags that make no sense."""

import shutil

import pytest
import torch

from nnunetv2_levit.analysis import truncation
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from tests.inference.model_folders import write_model_folder
from tests.support.faults import assert_refused, run, snapshot
from tests.support.hostile_checkpoints import poison

TRAINER, CHECKPOINT = "LeViTUNetTrainer_128s_blocks2", "checkpoint_final.pth"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(plugin_folder()))
        folder = tmp_path_factory.mktemp("trained") / f"{TRAINER}__nnUNetPlans__2d"
        return write_model_folder(folder, trainer=TRAINER, folds=(0,), patch_size=(32, 32))


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


def truncate(model, *flags):
    return ("truncate", "-m", model, "--blocks", 1, "-o", model.parent / "small", *flags)


def export(model, *flags):
    return ("export", "-m", model, "-o", model.parent / "model.onnx", *flags)


COMMANDS = {"truncate": truncate, "export": export}


def _change(path, key, value):
    content = torch.load(path, weights_only=False)
    content[key] = value
    torch.save(content, path)


def _other_shapes(path):
    weights = torch.load(path, weights_only=False)["network_weights"]
    _change(path, "network_weights", {name: value[:1] if value.ndim else value for name, value in weights.items()})


MODELS = {
    "code": (lambda m: poison(m / "fold_0" / CHECKPOINT, m.parent / "created"), "os.makedirs"),
    "an empty file": (lambda m: (m / "fold_0" / CHECKPOINT).write_bytes(b""), "is empty"),
    "a list": (lambda m: torch.save([1], m / "fold_0" / CHECKPOINT), "holds list"),
    "no tensors": (lambda m: _change(m / "fold_0" / CHECKPOINT, "network_weights", {"a": 1}), "is no tensor"),
    "other shapes": (lambda m: _other_shapes(m / "fold_0" / CHECKPOINT), "can't be loaded"),
    "a name outside the grammar": (
        lambda m: _change(m / "fold_0" / CHECKPOINT, "trainer_name", "LeViTUNetTrainer_129s"),
        "LeViTUNetTrainer_129s",
    ),
    "no dataset": (lambda m: (m / "dataset.json").unlink(), "dataset.json does not exist"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", MODELS)
def test_a_broken_or_hostile_model_is_refused(fault, command, model, capsys):
    damage, words = MODELS[fault]
    damage(model)
    before = snapshot(model.parent)
    assert_refused(run(capsys, *COMMANDS[command](model)), words)
    assert snapshot(model.parent) == before


FLAGS = {
    "no blocks left": (truncate, ("--blocks", 0), "at least 1 transformer block, not 0"),
    "blocks below none": (truncate, ("--blocks", -3), "at least 1 transformer block, not -3"),
    "all blocks": (truncate, ("--blocks", 2), "no more than 2 transformer blocks"),
    "blocks that are not there": (truncate, ("--blocks", 99), "1 to 4 transformer blocks"),
    "a path as checkpoint": (truncate, ("-chk", f"../fold_0/{CHECKPOINT}"), "without any folder"),
    "another checkpoint": (truncate, ("-chk", "checkpoint_best.pth"), "no fold with a checkpoint_best.pth"),
    "a path as checkpoint to export": (export, ("-chk", f"../fold_0/{CHECKPOINT}"), "without any folder"),
    "a fold that is not there": (export, ("-f", 3), "no checkpoint_final.pth for fold 3"),
    "another file ending": (export, ("-o", "model.pth"), "does not end in .onnx"),
}


@pytest.mark.parametrize("fault", FLAGS)
def test_flags_that_make_no_sense_are_refused(fault, model, capsys):
    command, flags, words = FLAGS[fault]
    before = snapshot(model.parent)
    assert_refused(run(capsys, *command(model, *flags)), words)
    assert snapshot(model.parent) == before


def test_a_trusted_checkpoint_is_truncated(model, capsys, monkeypatch):
    figures = {"parameters": 1, "gmac_per_image": 1, "images_per_second": 1}
    monkeypatch.setattr(truncation, "cost", lambda networks, _: dict.fromkeys(networks, figures))  # it takes seconds
    created = model.parent / "created"
    poison(model / "fold_0" / CHECKPOINT, created)
    outcome = run(capsys, *truncate(model, "--trust-checkpoint"))
    assert outcome.code == 0, outcome
    assert created.exists()
    assert (model.parent / "small" / "fold_0" / CHECKPOINT).is_file()
