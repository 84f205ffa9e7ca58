"""The hooks of the base trainer, on a real plans file and in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.run import run_training as nnunet_run_training

from nnunetv2_levit.errors import NonFiniteLossError, UserError
from nnunetv2_levit.nnunet.pretrained_weights import unwrapped
from nnunetv2_levit.nnunet.replacements import install, uninstall
from nnunetv2_levit.trainers.boundary_weighted_loss import BoundaryWeightedLoss
from nnunetv2_levit.trainers.naming import FAMILIES, trainer_class, truncated_name
from tests.conftest import DATASET_ID

CONFIGURATION = "2d_p48x40"


@pytest.fixture
def make_trainer(preprocessed, monkeypatch, tmp_path):
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (folder,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")

    def make(name="LeViTUNetTrainer_128s_2iterations_4epochs", configuration=CONFIGURATION, patch=None, device="cpu"):
        plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
        if patch is not None:
            plans["configurations"][configuration]["patch_size"] = patch
        dataset = json.loads((folder / "dataset.json").read_text())
        return trainer_class(name)(plans, configuration, 0, dataset, torch.device(device))

    return make


@pytest.fixture
def installed():
    """What stands in nnU-Net's place while it trains one of our trainers."""
    install()
    yield
    uninstall()


def batch(trainer, value=None):
    height, width = trainer.configuration_manager.patch_size
    data = torch.randn(2, 1, height, width)
    if value is not None:
        data[0, 0, 0, 0] = value
    target = torch.randint(0, 4, (2, 1, height, width)).float()
    if trainer.enable_deep_supervision:
        target = [target, target[:, :, ::4, ::4], target[:, :, ::8, ::8]]
    return {"data": data, "target": target}


def test_a_name_sets_epochs_iterations_and_recipe(make_trainer):
    trainer = make_trainer("LeViTUNetTrainer_128s_paper_20iterations")
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (304, 20, 4)
    assert trainer.batch_size == 8
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    trainer.lr_scheduler.step(200)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-5]


def test_the_papers_augmentation_only_mirrors_and_rotates(make_trainer):
    def transforms(name):
        trainer = make_trainer(name)
        rotation, dummy, _, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        pipeline = trainer.get_training_transforms([48, 40], rotation, None, axes, dummy)
        return rotation, [t.transform if isinstance(t, RandomTransform) else t for t in pipeline.transforms]

    _, stock = transforms("LeViTUNetTrainer_128s")
    rotation, paper = transforms("LeViTUNetTrainer_128s_paper")
    assert any(isinstance(t, GaussianNoiseTransform) for t in stock)
    assert [type(t) for t in paper] == [SpatialTransform, MirrorTransform, RemoveLabelTansform]
    spatial = next(t for t in paper if isinstance(t, SpatialTransform))
    assert (spatial.p_scaling, spatial.p_rotation, spatial.p_elastic_deform) == (0, 0.5, 0)
    assert np.rad2deg(rotation) == pytest.approx((-20, 20))


def test_deep_supervision_has_as_many_weighted_outputs_as_targets(make_trainer):
    trainer = make_trainer("LeViTUNetTrainer_128s_ds")
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    scales = trainer._get_deep_supervision_scales()
    assert scales == [[1, 1], [0.25, 0.25], [0.125, 0.125]]
    assert trainer.loss.weight_factors == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert len(trainer.network(torch.randn(2, 1, 48, 40))) == len(scales)
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network(torch.randn(2, 1, 48, 40)).shape == (2, 4, 48, 40)


def test_validation_does_not_switch_on_what_was_off(make_trainer):
    trainer = make_trainer()
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)  # as nnU-Net does after its final validation
    assert not trainer.network.deep_supervision
    assert trainer._get_deep_supervision_scales() is None


smallest_of_each_family = pytest.mark.parametrize(
    "name", [truncated_name(f"{family.name}Trainer", 1) for family in FAMILIES.values() if family.blocks]
)


def losses_and_rates(trainer):
    """Of ten steps on one batch, whose foreground is what is bright."""
    torch.manual_seed(0)
    trainer.initialize()
    fixed = batch(trainer)
    seen = (fixed["data"] > 0).float()
    if trainer.enable_deep_supervision:
        strides = [round(1 / scale) for scale in unwrapped(trainer.network).deep_supervision_scales]
        fixed["target"] = [seen[:, :, ::stride, ::stride] for stride in strides]
    else:
        fixed["target"] = seen
    losses, rates = [], []
    for trainer.current_epoch in range(5):
        trainer.on_train_epoch_start()
        for _ in range(2):
            losses.append(float(trainer.train_step(fixed)["loss"]))
            rates.append(trainer.optimizer.param_groups[0]["lr"])
    return losses, rates


@smallest_of_each_family
def test_training_steps_move_the_rate_and_lower_the_loss(make_trainer, name):
    trainer = make_trainer(f"{name}_2iterations_40epochs")
    losses, rates = losses_and_rates(trainer)
    assert rates[0] < rates[1] < trainer.initial_lr
    assert len(set(rates)) == len(rates)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.25


@pytest.mark.gpu
@smallest_of_each_family
@pytest.mark.parametrize(("option", "compiled"), [("", True), ("", False), ("_bf16", False)])
def test_training_steps_on_a_gpu_reach_every_parameter_and_lower_the_loss(
    make_trainer, monkeypatch, name, option, compiled
):
    """In fp16, compiled as nnU-Net does by default and not, and in bfloat16."""
    monkeypatch.setenv("nnUNet_compile", str(compiled))
    trainer = make_trainer(f"{name}{option}_2iterations_40epochs", device="cuda")
    losses, _ = losses_and_rates(trainer)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert all(torch.isfinite(parameter.grad).all() for parameter in trainer.network.parameters())


def test_transfuse_weights_three_outputs_of_full_resolution(make_trainer):
    trainer = make_trainer("TransFuseTrainer_blocks1_boundaryloss_multiscale")
    trainer.initialize()
    assert trainer._get_deep_supervision_scales() == [[1, 1]] * 3
    assert trainer.loss.weight_factors == pytest.approx((0.5, 0.3, 0.2))
    assert isinstance(trainer.loss.loss, BoundaryWeightedLoss)
    assert trainer.loss.loss.ignore_label is None
    sizes = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    fixed = batch(trainer)
    fixed["target"] = [fixed["target"][0]] * 3
    trainer.on_train_epoch_start()
    for _ in range(3):
        assert np.isfinite(trainer.train_step(fixed)["loss"])
    assert sizes == [(32, 32), (48, 40), (64, 64)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_with_a_sentence(make_trainer, value):
    trainer = make_trainer()
    trainer.initialize()
    trainer.current_epoch = 3
    trainer.on_train_epoch_start()
    trainer.train_step(batch(trainer))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    with pytest.raises(NonFiniteLossError) as stop:
        trainer.train_step(batch(trainer, value))
    sentence = str(stop.value)
    assert "in epoch 3, batch 1" in sentence
    assert "checkpoint_latest.pth: resume with --c" in sentence
    assert f"error: {sentence}" in Path(trainer.log_file).read_text()


def test_a_checkpoint_is_whole_or_absent(make_trainer, monkeypatch, tmp_path):
    trainer = make_trainer()
    trainer.initialize()
    target = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(target))
    before = target.read_bytes()

    def interrupted(content, name):
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(target))
    assert target.read_bytes() == before
    monkeypatch.undo()
    trainer.disable_checkpointing = True
    target.unlink()
    trainer.save_checkpoint(str(target))
    assert not target.exists()  # nor is a left-over partial file taken for one


def test_pretrained_weights_are_demanded_at_the_start_and_skipped_afterwards(make_trainer, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_levit_weights", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(UserError) as stop:
        make_trainer("LeViTUNetTrainer_128s_pretrained").initialize()
    assert str(tmp_path / "weights" / "levit_128s.fb_dist_in1k.safetensors") in str(stop.value)

    scratch = make_trainer("LeViTUNetTrainer_128s")
    scratch.initialize()
    scratch.current_epoch = 4
    for step in scratch.logger.local_logger.my_fantastic_logging.values():
        step.extend([0.0] * 5)
    scratch.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    resumed = make_trainer("LeViTUNetTrainer_128s_pretrained")
    resumed.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))  # no weights at hand, none needed
    assert resumed.current_epoch == 5


def test_pretrained_weights_reach_the_network_and_the_log(make_trainer, monkeypatch, tmp_path):
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("levit_128s", pretrained=False)
    with torch.no_grad():
        model.stages[0].blocks[0].attn.attention_biases.normal_(0, 5)
    save_file(model.state_dict(), tmp_path / "levit_128s.fb_dist_in1k.safetensors")
    monkeypatch.setenv("nnUNet_levit_weights", str(tmp_path))
    trainer = make_trainer("LeViTUNetTrainer_128s_pretrained")
    trainer.initialize()
    ours = trainer.network.encoder.stages[0].blocks[0].attn.attention_biases
    torch.testing.assert_close(ours[:, 0], model.stages[0].blocks[0].attn.attention_biases[:, 0])
    assert "3 to 1 channels" in Path(trainer.log_file).read_text()


@pytest.mark.usefixtures("installed")
def test_nnunets_pretrained_weights_flag_takes_another_patch_size(make_trainer, tmp_path):
    source = make_trainer(patch=[96, 64])
    source.initialize()
    with torch.no_grad():
        for parameter in source.network.parameters():
            parameter.normal_()
    source.save_checkpoint(str(tmp_path / "source.pth"))
    target = make_trainer()
    nnunet_run_training.maybe_load_checkpoint(target, False, False, str(tmp_path / "source.pth"))
    name = "stages.0.blocks.0.attn.attention_biases"
    table = source.network.encoder.state_dict()[name].view(4, 6, 4)
    torch.testing.assert_close(target.network.encoder.state_dict()[name].view(4, 3, 3), table[:, :3, :3])
    heads = [n for n in target.network.state_dict() if ".seg_layers." in n]
    for key, value in target.network.state_dict().items():
        if "attention_biases" not in key:
            assert torch.equal(value, source.network.state_dict()[key]) == (key not in heads)


@pytest.mark.usefixtures("installed")
def test_pretrained_weights_of_another_network_are_refused(make_trainer, tmp_path):
    source = make_trainer("LeViTUNetTrainer_192")
    source.initialize()
    source.save_checkpoint(str(tmp_path / "source.pth"))
    (tmp_path / "broken.pth").write_bytes(b"x")
    for name, words in (("source.pth", "does not fit this network"), ("broken.pth", "not a readable")):
        with pytest.raises(UserError, match=words):
            nnunet_run_training.maybe_load_checkpoint(make_trainer(), False, False, str(tmp_path / name))


def test_a_3d_configuration_is_refused(make_trainer):
    with pytest.raises(UserError, match="trains 2D networks"):
        make_trainer(patch=[16, 48, 48]).initialize()
