"""This package's recipe on the network that the plans name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_levit.cli.train import checked_arguments
from nnunetv2_levit.nnunet.trained_model import load_trained_model
from nnunetv2_levit.nnunet.trainer_classes import find_trainer_class
from nnunetv2_levit.trainers.naming import trainer_class
from tests.conftest import DATASET_ID

NAME = "HybridRecipeTrainer_2iterations_4epochs"


@pytest.fixture
def folder(preprocessed, monkeypatch, tmp_path):
    """The preprocessed dataset."""
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (folder,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")
    return folder


def make(folder, cls, *, change=None):
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    if change is not None:
        change(plans["configurations"]["2d"]["architecture"])
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = cls(plans, "2d", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    return trainer


def batch(trainer):
    images = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    seen = (images > 0).float()
    scales = trainer._get_deep_supervision_scales()
    return {"data": images, "target": [seen[..., :: round(1 / s[0]), :: round(1 / s[1])] for s in scales]}


def test_network_loss_and_deep_supervision_are_nnunets_and_the_optimizer_is_not(folder):
    ours, theirs = make(folder, trainer_class(NAME)), make(folder, nnUNetTrainer)
    assert isinstance(ours.network, PlainConvUNet)
    assert {n: w.shape for n, w in ours.network.state_dict().items()} == {
        n: w.shape for n, w in theirs.network.state_dict().items()
    }
    ours.network.load_state_dict(theirs.network.state_dict())
    assert ours._get_deep_supervision_scales() == theirs._get_deep_supervision_scales()
    fixed = batch(theirs)
    outputs = [trainer.network(fixed["data"]) for trainer in (ours, theirs)]
    losses = [trainer.loss(out, fixed["target"]) for trainer, out in zip((ours, theirs), outputs, strict=True)]
    assert torch.equal(*losses)
    assert isinstance(ours.optimizer, torch.optim.AdamW)
    decays = {group["weight_decay"]: len(group["params"]) for group in ours.optimizer.param_groups}
    assert set(decays) == {0.01, 0.0}
    assert all(decays.values())


def test_it_trains_and_its_checkpoint_is_predicted_with(folder, tmp_path):
    torch.manual_seed(0)
    trainer = make(folder, trainer_class(NAME))
    fixed, losses, rates = batch(trainer), [], []
    for trainer.current_epoch in range(4):
        trainer.on_train_epoch_start()
        for _ in range(2):
            losses.append(float(trainer.train_step(fixed)["loss"]))
            rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert len(set(rates)) == len(rates)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    output = Path(trainer.output_folder)
    trainer.save_checkpoint(str(output / "checkpoint_final.pth"))
    for name, content in (("plans", trainer.plans_manager.plans), ("dataset", trainer.dataset_json)):
        (output.parent / f"{name}.json").write_text(json.dumps(content))
    loaded = load_trained_model(output.parent, folds=[0])
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    with torch.no_grad():
        assert torch.equal(loaded.network(fixed["data"]), trainer.network(fixed["data"]))


def test_a_residual_encoder_of_the_plans_is_trained(folder):
    def residual(architecture):
        architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        keywords = architecture["arch_kwargs"]
        keywords["n_blocks_per_stage"] = keywords.pop("n_conv_per_stage")

    trainer = make(folder, trainer_class(NAME), change=residual)
    assert isinstance(trainer.network, ResidualEncoderUNet)
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])


def test_nnunets_look_up_and_train_find_it_for_3d_too(folder, monkeypatch):
    assert find_trainer_class(NAME) is trainer_class(NAME)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    three = plans["configurations"]["2d"] | {"patch_size": [8, 48, 48], "spacing": [10.0, 1.0, 1.0]}
    plans["configurations"]["3d"] = three
    plans["plans_name"] = "with3d"
    (folder / "with3d.json").write_text(json.dumps(plans))
    try:
        arguments = [str(DATASET_ID), "3d", "0", "-p", "with3d", "-tr", "HybridRecipeTrainer", "-device", "cpu"]
        assert checked_arguments(arguments) == arguments
    finally:
        (folder / "with3d.json").unlink()
