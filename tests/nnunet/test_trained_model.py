"""`load_trained_model` beside nnU-Net's own loading, and `load_checkpoint` by each of its parameter's names."""

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from nnunetv2_levit.nnunet.trained_model import load_trained_model
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from tests.inference.model_folders import REGIONS, write_model_folder


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "LeViTUNetTrainer_128s_blocks1"])
def test_a_model_is_what_nnunets_predictor_loads(trainer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, str(plugin_folder()))
        model = write_model_folder(
            tmp_path / "model", trainer=trainer, patch_size=(32, 32), channels=2, labels=REGIONS, mirror_axes=(1,)
        )
        theirs = nnUNetPredictor(device=torch.device("cpu"))
        theirs.initialize_from_trained_model_folder(str(model), (1, 0))
    ours = load_trained_model(model, folds=(1, 0))
    assert (ours.trainer_name, ours.configuration_name, ours.in_channels) == (trainer, "2d", 2)
    assert ours.patch_size == (32, 32)
    assert ours.mirror_axes == theirs.allowed_mirroring_axes == (1,)
    assert ours.plans.plans == theirs.plans_manager.plans
    assert ours.configuration.configuration == theirs.configuration_manager.configuration
    assert ours.dataset == theirs.dataset_json
    assert ours.labels.num_segmentation_heads == theirs.label_manager.num_segmentation_heads
    assert type(ours.network) is type(theirs.network)
    expected = [*theirs.list_of_parameters, theirs.network.state_dict()]
    for fold, state in zip([*(fold.weights for fold in ours.folds), ours.network.state_dict()], expected, strict=True):
        assert list(fold) == list(state)
        assert all(torch.equal(fold[name], state[name]) for name in state)
    assert [fold.name for fold in ours.folds] == [1, 0]


def test_no_fold_is_refused(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0,), patch_size=(32, 32))
    with pytest.raises(UserError, match=r"no fold of .* was named"):
        load_trained_model(model, folds=())


@pytest.mark.parametrize("name", ["checkpoint", "filename_or_checkpoint", None])
def test_load_checkpoint_takes_the_file_by_both_names(name, tmp_path):
    absent = tmp_path / "checkpoint_best.pth"
    arguments, keywords = ((str(absent),), {}) if name is None else ((), {name: str(absent)})
    trainer = object.__new__(HybridTrainer)
    with pytest.raises(UserError, match="there is no checkpoint"):  # found before anything else is asked of the trainer
        trainer.load_checkpoint(*arguments, **keywords)
    with pytest.raises(TypeError):
        trainer.load_checkpoint()
