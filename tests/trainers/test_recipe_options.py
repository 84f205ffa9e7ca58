"""Options of every family that change its recipe: what they set, and that a training goes on where it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.nnunet.checkpoints import load_checkpoint
from nnunetv2_levit.nnunet.trained_model import TrainedFold
from nnunetv2_levit.trainers.families import RECIPE_OPTIONS
from nnunetv2_levit.trainers.naming import FAMILIES, trainer_class, truncated_name
from nnunetv2_levit.trainers.unet2022 import PAPER_RECIPES
from nnunetv2_levit.trainers.weight_average import WeightAverage
from tests.trainers.test_hybrid_trainer import batch, make_trainer

__all__ = ["make_trainer"]  # a fixture

SMALL = "LeViTUNetTrainer_128s_blocks1"
LENGTH = "2iterations_4epochs"


@pytest.mark.parametrize("option", RECIPE_OPTIONS, ids=lambda option: option.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_them_and_they_change_the_fields_alone(family, option):
    plain, changed = (trainer_class(f"{family}Trainer{suffix}").recipe for suffix in ("", f"_{option.name}"))
    different = {name for name, value in vars(changed).items() if value != vars(plain)[name]}
    assert different
    assert different <= set(option.recipe_changes)


def test_they_add_up_and_hold_for_a_papers_recipe_too():
    both = trainer_class("UNet2022Trainer_primus_ema").recipe
    assert (both.learning_rate, both.betas, both.weight_decay, both.warmup) == (3e-4, (0.9, 0.98), 0.05, 0.05)
    assert both.weight_average == 0.02
    paper = trainer_class("UNet2022Trainer_ema_paper").recipe
    assert vars(paper) == {**vars(PAPER_RECIPES["tiny", 4]), "weight_average": 0.02}
    vit = trainer_class("UNETR2DTrainer_1block_primus")
    assert vit.network_options == {"drop_path": 0.2, "layer_scale": 0.1}


@pytest.mark.parametrize("name", ["levit_unet_128s", "unet2022_tiny"])
def test_norms_biases_and_tables_of_biases_take_no_decay(name):
    with torch.device("meta"):
        network = create(name, in_channels=1, num_classes=2, image_size=(64, 64))
    decayed, free = trainer_class("LeViTUNetTrainer").recipe.build_optimizer(network).param_groups
    names = {id(value): name for name, value in network.named_parameters()}
    assert [group["weight_decay"] for group in (decayed, free)] == [0.01, 0.0]
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight"}
    assert sum(names[id(p)].endswith(("attention_biases", "bias_table")) for p in free["params"]) > 4


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def averaged(iterations):
    network = small_network()
    optimizer = torch.optim.AdamW(network.parameters())
    return network, optimizer, WeightAverage(network, optimizer, iterations=iterations)


def shift(network, amount):
    with torch.no_grad():
        for value in (*network.parameters(), network[1].running_mean):
            value.add_(amount)


def test_the_average_is_exponential_and_its_first_value_the_first_weights():
    network, _, average = averaged(iterations=4)
    expected = None
    for step in range(1, 30):
        shift(network, step)
        average.update(step)
        value = network[0].bias.detach().clone()
        decay = min(1 - 1 / 4, 1 - step ** (-2 / 3))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    with average.in_place():
        torch.testing.assert_close(network[0].bias.detach(), expected)
        assert not torch.equal(network[1].running_mean, trained["1.running_mean"])
        with average.in_place():  # within itself it changes nothing
            torch.testing.assert_close(network[0].bias.detach(), expected)
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())


def test_a_stop_within_leaves_the_trained_weights():
    network, _, average = averaged(iterations=4)
    average.update(1)
    shift(network, 1)
    before = network[0].bias.detach().clone()
    with pytest.raises(KeyboardInterrupt), average.in_place():
        raise KeyboardInterrupt
    assert torch.equal(network[0].bias.detach(), before)


@pytest.mark.parametrize("base", ["LeViTUNetTrainer_128s_blocks1", "HybridRecipeTrainer"])
def test_a_checkpoint_holds_the_average_and_goes_on_with_both(make_trainer, tmp_path, base):
    configuration = "2d" if base == "HybridRecipeTrainer" else "2d_p48x40"

    def trained(epochs, start=None):
        torch.manual_seed(1)
        trainer = make_trainer(f"{base}_ema_50iterations_4epochs", configuration)  # averages over 4 iterations
        if start is None:
            trainer.initialize()
        else:
            trainer.load_checkpoint(str(start))
        trainer.set_deep_supervision_enabled(True)
        for trainer.current_epoch in epochs:
            trainer.on_train_epoch_start()
            for number in range(3):
                torch.manual_seed(10 * trainer.current_epoch + number)
                trainer.train_step(batch_of(trainer))
        return trainer

    def batch_of(trainer):
        images = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
        scales = trainer._get_deep_supervision_scales()
        seen = (images > 0).float()
        if scales is None:
            return {"data": images, "target": seen}
        return {"data": images, "target": [seen[..., :: round(1 / s[0]), :: round(1 / s[1])] for s in scales]}

    whole = trained(range(2))
    first = trained(range(1))
    for step in first.logger.local_logger.my_fantastic_logging.values():
        step.extend([0.0])
    path = tmp_path / "checkpoint_latest.pth"
    first.save_checkpoint(str(path))
    at_work = {name: value.clone() for name, value in first.network.state_dict().items()}
    stored = load_checkpoint(path)
    held, averaged_weights = stored["optimizer_state"]["trained_weights"], stored["network_weights"]
    assert all(torch.equal(value, at_work[name]) for name, value in held.items() if name in at_work)
    first_kernel = next(iter(at_work))  # in nnU-Net's network it has several names
    assert not torch.equal(averaged_weights[first_kernel], at_work[first_kernel])

    second = trained(range(1, 2), start=path)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    final = tmp_path / "checkpoint_final.pth"
    whole.save_checkpoint(str(final))
    predicted_with = TrainedFold.read(final, 0).weights
    with second._averaged_weights():
        assert all(torch.equal(value, predicted_with[name]) for name, value in second.network.state_dict().items())


def test_validation_sees_the_average_and_training_goes_on_with_its_own(make_trainer):
    trainer = make_trainer(f"{SMALL}_ema_50iterations_4epochs")
    trainer.initialize()
    trainer.on_train_epoch_start()
    for _ in range(3):
        trainer.train_step(batch(trainer))
    name = "decoder.seg_layers.0.weight"
    before = trainer.network.state_dict()[name].clone()
    with trainer._averaged_weights():
        average = trainer.network.state_dict()[name].clone()
    seen = []
    trainer.network.register_forward_pre_hook(lambda network, _: seen.append(network.state_dict()[name].clone()))
    trainer.on_validation_epoch_start()
    trainer.validation_step(batch(trainer))
    assert torch.equal(seen[0], average)
    assert not torch.equal(seen[0], before)
    assert torch.equal(trainer.network.state_dict()[name], before)


@pytest.mark.parametrize("kind", [list, tuple])
def test_bf16_computes_the_passes_in_it_and_the_loss_in_fp32(make_trainer, kind):
    trainer = make_trainer(f"{SMALL}_ds_bf16_{LENGTH}")
    trainer.initialize()
    trainer.network.register_forward_hook(lambda _, inputs, outputs: kind(outputs))
    kinds = []
    trainer.network.decoder.blocks[2].conv2.register_forward_hook(lambda *a: kinds.append(a[2].dtype))
    trainer.loss.loss.register_forward_pre_hook(lambda _, inputs: kinds.append(inputs[0].dtype))
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])
    assert kinds == [torch.bfloat16] + [torch.float32] * 3
    assert all(value.dtype == torch.float32 for value in trainer.network.parameters())


@pytest.mark.parametrize(
    "name", [truncated_name(f"{family.name}Trainer", 1) for family in FAMILIES.values() if family.blocks]
)
def test_every_network_computes_in_bf16_nearly_what_it_computes_in_fp32(name):
    torch.manual_seed(0)
    name = name.replace("LeViTUNetTrainer", "LeViTUNetTrainer_128s")
    cls = trainer_class(name)
    network = cls.build_network_architecture(None, SimpleNamespace(patch_size=(64, 64)), 1, 4, False).eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        exact = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(images).float()
    assert (rough - exact).norm() < 0.05 * exact.norm()
    assert not torch.equal(rough, exact)


def test_adaptive_clipping_holds_each_unit_to_its_weights(make_trainer):
    trainer = make_trainer(f"{SMALL}_agc_{LENGTH}")
    trainer.initialize()
    trainer.on_train_epoch_start()
    trainer.train_step(batch(trainer))
    head = trainer.network.decoder.seg_layers[0].weight
    ratio = head.grad.flatten(1).norm(dim=1) / head.detach().flatten(1).norm(dim=1)
    assert ratio.max() <= 0.0101


def test_without_mirroring_neither_patches_nor_predictions_are_mirrored(make_trainer):
    rotations = []
    for option, mirrored in (("", (0, 1)), ("_nomirror", None)):
        trainer = make_trainer(f"{SMALL}{option}_{LENGTH}")
        rotation, _, _, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert axes == trainer.inference_allowed_mirroring_axes == mirrored
        rotations.append(rotation)
    assert rotations[0] == rotations[1]
