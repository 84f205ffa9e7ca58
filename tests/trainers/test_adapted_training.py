"""Stock trainers of nnU-Net's and this package's recipe train a network within the adapter."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.any_network.adapter import ONE_OUTPUT, AdaptedNetwork
from nnunetv2_levit.cli.train import checked_arguments
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.trainers.naming import trainer_class
from tests.conftest import DATASET_ID
from tests.network_check import broken_networks as nets

TRAINERS = (nnUNetTrainer, nnUNetTrainerNoDeepSupervision, trainer_class("HybridRecipeTrainer_2iterations_4epochs"))


@pytest.fixture
def plans_and_dataset(preprocessed, monkeypatch, tmp_path):
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (folder,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    configuration = plans["configurations"]["2d"]
    configuration["architecture"] = {
        "network_class_name": ADAPTER,
        "arch_kwargs": {
            "network": f"{nets.__name__}.MultiplesOf16",
            "arguments": {"in_channels": "{channels}", "num_classes": "{classes}"},
            "image_size": configuration["patch_size"],
            "size_multiple": 16,
            "strides": [list(stride) for stride in ONE_OUTPUT],
        },
        "_kw_requires_import": [],
    }
    return plans, json.loads((folder / "dataset.json").read_text())


@pytest.mark.parametrize("cls", TRAINERS, ids=lambda cls: cls.__name__)
def test_a_step_is_one_of_the_full_resolution_alone(cls, plans_and_dataset):
    plans, dataset = plans_and_dataset
    torch.manual_seed(0)
    trainer = cls(plans, "2d", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    assert isinstance(trainer.network, AdaptedNetwork)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    images = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    target = (images > 0).float()
    scales = trainer._get_deep_supervision_scales()
    batch = {"data": images, "target": target if scales is None else [target for _ in scales]}
    output = trainer.network(images)
    loss = trainer.loss(output, batch["target"])
    if scales is not None:
        assert len(output) == len(scales) == 2
        torch.testing.assert_close(loss, trainer.loss.loss(output[0], target))
    trainer.on_train_epoch_start()
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(4)]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])
    trainer.set_deep_supervision_enabled(False)  # as for the final validation, which predicts
    assert trainer.network(images).shape[1] == len(dataset["labels"])


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "HybridRecipeTrainer"])
def test_a_missing_package_is_known_before_the_training(trainer, plans_and_dataset, preprocessed):
    plans, _ = plans_and_dataset
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["network"] = "nowhere.nets.Net"
    plans["plans_name"] = "elsewhere"
    (folder,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")
    file = folder / "elsewhere.json"
    file.write_text(json.dumps(plans))
    words = [str(DATASET_ID), "2d", "0", "-p", "elsewhere", "-device", "cpu", "-tr"]
    try:
        with pytest.raises(UserError, match="needs the package nowhere"):
            checked_arguments([*words, trainer])
        with pytest.raises(UserError, match="trains a network of its own"):
            checked_arguments([*words, "LeViTUNetTrainer"])
    finally:
        file.unlink()
