import multiprocessing
import pickle
from types import SimpleNamespace

import pytest
import torch

from nnunetv2_levit import trainers
from nnunetv2_levit.trainers import FAMILIES
from nnunetv2_levit.trainers.levit_unet import PAPER_RECIPE
from nnunetv2_levit.trainers.naming import trainer_class

# every family in every size, and every option of its default size
NAMES = [
    f"{family.name}Trainer{suffix}"
    for family in FAMILIES.values()
    for suffix in ("", *(f"_{size}" for size in family.sizes), *(f"_{option.name}" for option in family.options))
]

SIZE = (64, 80)  # large enough that the coarsest stage has more than one token: one alone has no attention to learn


def identity_of(name):
    """In another process: the class of that name, found anew."""
    cls = getattr(trainers, name)
    return cls, cls.network_name


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_picklable_class(name):
    cls = getattr(trainers, name)
    assert getattr(trainers, name) is cls
    assert cls.__name__ == cls.__qualname__ == name
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert cls.__doc__
    assert "__" not in name


def test_a_spawned_process_finds_the_same_class():
    names = ["LeViTUNetTrainer", "LeViTUNetTrainer_192_conv_7epochs"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name, (cls, network_name) in zip(names, pool.map(identity_of, names), strict=True):
            assert cls is getattr(trainers, name)
            assert network_name == cls.network_name


def test_what_a_name_says():
    cls = trainers.LeViTUNetTrainer_192_conv_skips2_pretrained_paper_20iterations_50epochs
    assert cls.network_name == "levit_unet_192"
    assert cls.network_options == {"transformer": False, "skips": 2}
    assert cls.pretrained == "levit_192.fb_dist_in1k"
    assert cls.recipe is PAPER_RECIPE
    assert (cls.num_epochs_override, cls.num_iterations_override) == (50, 20)
    plain = trainers.LeViTUNetTrainer
    assert plain.network_name == "levit_unet_384"
    assert plain.pretrained is None
    assert (plain.num_epochs_override, plain.num_iterations_override) == (None, None)


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate", "supervised"),
    [
        ("UNet2022Trainer_paper", 1437, 8, 1e-4, True),
        ("UNet2022Trainer_base_paper", 1492, 16, 1e-4, True),
        ("UNet2022Trainer_large_pretrained_paper", 322, 8, 1e-4, False),
        ("UNet2022Trainer_p8_paper", 24, 8, 7e-4, True),
    ],
)
def test_the_recipes_of_unet2022(name, epochs, batch, rate, supervised):
    cls = getattr(trainers, name)
    recipe = cls.recipe
    assert (recipe.num_epochs, recipe.batch_size, recipe.learning_rate) == (epochs, batch, rate)
    assert (recipe.weight_dice, recipe.weight_ce, recipe.gradient_clip) == (1.2, 0.8, 12)
    assert (recipe.optimizer, recipe.weight_decay, recipe.decay) == ("adam", 0, "constant")
    assert recipe.rotation_degrees == (0, 15)
    assert cls.network_options["auxiliary_heads"] == supervised


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LeViTUNetTrainer_385", "'385' is neither a size nor an option"),
        ("LeViTUNetTrainer_paper_conv", "in this order"),
        ("LeViTUNetTrainer_conv_conv", "once each"),
        ("LeViTUNetTrainer_skips1_skips3", "exclude each other"),
        ("LeViTUNetTrainer_identity_pretrained", "exclude each other"),
        ("LeViTUNetTrainer__384", "neither a size nor an option"),
        ("LeViTUNetTrainer_0epochs", "neither a size nor an option"),
        ("LeViTUNetTrainer_50epochs_conv", "neither a size nor an option"),
        ("LeViTUNetTrainer_", "neither a size nor an option"),
        ("UNet2022Trainer_base_p8_paper", "trained no UNet-2022 base with stem stride 8"),
    ],
)
def test_a_name_outside_the_grammar_says_why(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(trainers, name)


@pytest.mark.parametrize("name", ["nnUNetTrainer", "FooTrainer", "LeViTUNetTrainers", "__wrapped__", "_x"])
def test_foreign_names_are_left_to_others(name):
    assert not hasattr(trainers, name)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith("_pretrained")])
def test_every_parameter_receives_a_gradient_as_the_trainer_trains(name):
    """DDP stops at a parameter without gradient; nnU-Net does not look for them."""
    torch.manual_seed(0)
    cls = trainer_class(name)
    supervised = bool(cls.network_options.get("auxiliary_heads"))
    network = cls.build_network_architecture(None, SimpleNamespace(patch_size=SIZE), 2, 3, supervised).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    outputs = network(torch.randn(4, 2, *SIZE))  # four images: no residual branch is dropped for all of them
    outputs = outputs if supervised else [outputs]
    assert len(outputs) == (len(network.deep_supervision_scales) if supervised else 1)
    sum((output * torch.randn_like(output)).mean() for output in outputs).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
