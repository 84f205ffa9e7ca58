import multiprocessing
import pickle
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2_levit import trainers
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.plugin import nnunetv2_levit_plugin
from nnunetv2_levit.trainers import FAMILIES
from nnunetv2_levit.trainers.levit_unet import PAPER_RECIPE
from nnunetv2_levit.trainers.naming import parse, trainer_class

# every family in every size, and every option of its default size
NAMES = [
    f"{family.name}Trainer{suffix}".replace("<N>", "1")
    for family in FAMILIES.values()
    for suffix in ("", *(f"_{size}" for size in family.sizes), *(f"_{option.name}" for option in family.options))
]


# sizes that differ by widths or by the number of equal blocks alone: options are tried in these, plain names in all
SMALLEST = {"LeViTUNet": "128s", "TransUNet": "3blocks", "UNETR2D": "3blocks", "CATS2D": "3blocks"}


def in_the_smallest(name):
    parsed = parse(name)
    size = SMALLEST.get(parsed.family.name)
    if not size or not parsed.words or (size == "3blocks" and "blocks1" in parsed.words):  # which say the same twice
        return name
    return replace(parsed, size=size).joined()


# names whose networks differ: the option chosen last is one that changes the network
NETWORKS = {
    (cls.network_name, tuple(sorted(cls.network_options.items()))): name
    for name in map(in_the_smallest, reversed(NAMES))
    for cls in [trainer_class(name)]
    if not parse(name).family.network_of_plans  # those are nnU-Net's
}

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


def test_the_recipes_of_transfuse_and_the_study():
    paper = trainers.TransFuseTrainer_L_pretrained_paper
    assert (paper.network_name, paper.network_options) == ("transfuse_l", {"auxiliary_heads": True})
    assert paper.pretrained == ("res2net50_26w_4s.in1k", "deit_base_patch16_224.fb_in1k")
    assert (paper.recipe.loss, paper.recipe.output_weights) == ("boundary_weighted", (0.5, 0.3, 0.2))
    (group,) = paper.recipe.build_optimizer(torch.nn.Linear(2, 2)).param_groups
    assert (group["betas"], group["lr"], paper.recipe.gradient_clip) == ((0.5, 0.999), 1e-4, 2)
    assert [getattr(trainers, f"TransFuseTrainer{option}").recipe.loss for option in ("", "_boundaryloss")] == [
        "dice_ce",
        "boundary_weighted",
    ]
    assert trainers.TransFuseTrainer_nodropout.network_options == {"auxiliary_heads": True, "dropout": 0.0}
    assert trainers.TransFuseTrainer_multiscale.train_scales == (0.75, 1, 1.25)
    sgd = trainers.TransUNetTrainer_paper.recipe.build_optimizer(torch.nn.Linear(2, 2)).param_groups[0]
    assert (sgd["momentum"], sgd["nesterov"], sgd["lr"]) == (0.9, False, 0.01)
    assert trainers.UNETR2DTrainer_paper.recipe is trainers.TransUNetTrainer_study.recipe
    cats = trainers.CATS2DTrainer_3blocks_r34_pretrained
    assert cats.pretrained == ("resnet34.tv_in1k", "vit_base_patch16_224.orig_in21k")
    assert (cats.network_name, cats.network_options) == ("cats2d_3blocks", {"resnet": "resnet34"})


@pytest.mark.parametrize(
    ("name", "blocks", "expected"),
    [
        ("TransUNetTrainer", 3, "TransUNetTrainer_3blocks"),
        ("TransUNetTrainer_12blocks_ds_20epochs", 6, "TransUNetTrainer_blocks6_ds_20epochs"),
        ("TransUNetTrainer_blocks6_ds", 1, "TransUNetTrainer_1block_ds"),
        ("CATS2DTrainer_3blocks_r34_pretrained", 2, "CATS2DTrainer_blocks2_r34_pretrained"),
        ("TransFuseTrainer_L_paper", 4, "TransFuseTrainer_L_blocks4_paper"),
        (
            "LeViTUNetTrainer_192_skips2_3iterations_5epochs",
            2,
            "LeViTUNetTrainer_192_blocks2_skips2_3iterations_5epochs",
        ),
        ("UNet2022Trainer", 1, "UNet2022Trainer_blocks1"),
    ],
)
def test_the_name_of_a_truncated_model(name, blocks, expected):
    cls = getattr(trainers, name)
    assert cls.truncated_name(blocks) == expected
    truncated = getattr(trainers, expected)
    assert truncated.recipe is cls.recipe
    assert truncated.pretrained == cls.pretrained


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TransUNetTrainer_3blocks_blocks2", "leave it or blocks<N> out"),
        ("TransUNetTrainer_blocks0", "neither a size nor an option"),
        ("TransFuseTrainer_s", "'s' is neither a size nor an option"),
        ("LeViTUNetTrainer_blocks2_conv", "exclude each other"),
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
        ("LeViTUNetTrainer_conv_identity", "exclude each other"),
        ("LeViTUNetTrainer_blocks99", "1 to 4 transformer blocks"),
        ("TransUNetTrainer_blocks13", "1 to 12 transformer blocks"),
        ("TransFuseTrainer_blocks9", "1 to 8 transformer blocks"),
        ("UNet2022Trainer_blocks4", "1 to 3 transformer blocks"),
        ("LeViTUNetTrainer_blocks0", "numbers begin at 1"),
        ("LeViTUNetTrainer_blocks02", "no leading zeros"),
        ("LeViTUNetTrainer_0250iterations", "no leading zeros"),
        ("LeViTUNetTrainer_5epochs_3iterations", "iterations first"),
        ("HybridRecipeTrainer_128s", "sizes are none"),
        ("HybridRecipeTrainer_0epochs", "numbers begin at 1"),
    ],
)
def test_a_name_outside_the_grammar_says_why(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(trainers, name)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("LeViTUNetTrainer_384", "LeViTUNetTrainer"),
        ("LeViTUNetTrainer_384_ds_20epochs", "LeViTUNetTrainer_ds_20epochs"),
        ("LeViTUNetTrainer_1000epochs", "LeViTUNetTrainer"),
        ("HybridRecipeTrainer_1000epochs", "HybridRecipeTrainer"),
        ("LeViTUNetTrainer_250iterations", "LeViTUNetTrainer"),
        ("LeViTUNetTrainer_250iterations_1000epochs", "LeViTUNetTrainer"),
        ("LeViTUNetTrainer_paper_304epochs", "LeViTUNetTrainer_paper"),
        ("LeViTUNetTrainer_skips4", "LeViTUNetTrainer"),
        ("LeViTUNetTrainer_conv_skips3_ds", "LeViTUNetTrainer_conv_ds"),
        ("LeViTUNetTrainer_192_blocks4", "LeViTUNetTrainer_192"),
        ("TransUNetTrainer_12blocks", "TransUNetTrainer"),
        ("TransUNetTrainer_blocks12_ds", "TransUNetTrainer_ds"),
        ("TransUNetTrainer_blocks3_ds", "TransUNetTrainer_3blocks_ds"),
        ("UNETR2DTrainer_blocks1", "UNETR2DTrainer_1block"),
        ("TransFuseTrainer_S_blocks8", "TransFuseTrainer"),
        ("TransFuseTrainer_L_blocks10_paper_11epochs", "TransFuseTrainer_L_paper"),
        ("UNet2022Trainer_blocks3", "UNet2022Trainer"),
        ("UNet2022Trainer_large_nods_paper", "UNet2022Trainer_large_paper"),
    ],
)
def test_a_second_name_of_a_training_is_refused_for_training_and_loaded_for_prediction(name, canonical):
    cls = getattr(trainers, name)  # as prediction looks it up
    with pytest.raises(UserError, match=f"{name} is the training {canonical} by a second name"):
        cls.check_name()
    getattr(trainers, canonical).check_name()


@pytest.mark.parametrize(
    "name",
    [
        *(f"{family}Trainer" for family in FAMILIES),
        "LeViTUNetTrainer_304epochs",
        "LeViTUNetTrainer_128s_blocks3",  # its stages have 2, 3 and 4
        "LeViTUNetTrainer_conv_skips2",
        "LeViTUNetTrainer_paper_1000epochs",
        "TransFuseTrainer_L_blocks8",
        "UNet2022Trainer_nods_paper",
        "TransUNetTrainer_blocks11_pretrained_study_60epochs",
    ],
)
def test_the_one_name_of_a_training_is_kept(name):
    getattr(trainers, name).check_name()


@pytest.mark.parametrize("name", ["nnUNetTrainer", "FooTrainer", "LeViTUNetTrainers", "__wrapped__", "_x"])
def test_foreign_names_are_left_to_others(name):
    assert not hasattr(trainers, name)


def watch_for_biases_that_a_batch_norm_undoes(network):
    """Set of parameter names, filled by the next forward pass.

    In training a batch norm subtracts each channel's mean, and with it a bias that was added just before: the loss
    does not depend on such a bias, and its gradient is zero but for rounding, which differs between processors.
    """
    undone = set()

    def after_a_layer(layer, _, output, name):
        if layer.bias is not None:
            output.bias_just_added = name, output._version  # a version grows where a tensor is changed in place

    def before_a_batch_norm(_, inputs):
        name, version = getattr(inputs[0], "bias_just_added", (None, None))
        if name is not None and version == inputs[0]._version:
            undone.add(name)

    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.register_forward_pre_hook(before_a_batch_norm)
        elif isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.register_forward_hook(partial(after_a_layer, name=f"{name}.bias"))
    return undone


@pytest.mark.parametrize("name", reversed(NETWORKS.values()))
def test_every_parameter_receives_a_gradient_as_the_trainer_trains(name):
    """DDP stops at a parameter without gradient; nnU-Net does not look for them.

    A gradient is also to be above zero, except where mathematics gives zero: a bias that a batch norm undoes.
    """
    torch.manual_seed(0)
    cls = trainer_class(name)
    supervised = bool(cls.network_options.get("auxiliary_heads"))
    network = cls.build_network_architecture(None, SimpleNamespace(patch_size=SIZE), 2, 3, supervised).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.035, 0.035))
    undone = watch_for_biases_that_a_batch_norm_undoes(network)
    outputs = network(torch.randn(4, 2, *SIZE))  # four images: no residual branch is dropped for all of them
    outputs = outputs if supervised else [outputs]
    assert len(outputs) == (len(network.deep_supervision_scales) if supervised else 1)
    sum((output * torch.randn_like(output)).mean() for output in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [n for n, gradient in gradients.items() if n not in undone and not gradient.norm() > 0] == []


def test_only_biases_right_before_a_batch_norm_count_as_undone():
    network = nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)),  # 0: undone
        *(nn.Conv2d(2, 2, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(2)),  # 2: the activation comes in between
        *(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)),  # 5: has none
        nn.Conv2d(2, 2, 1),  # 7: has no norm
    ).double()
    undone = watch_for_biases_that_a_batch_norm_undoes(network)
    output = network(torch.randn(3, 1, 4, 4, dtype=torch.float64))
    assert undone == {"0.bias"}
    (output * torch.randn_like(output)).sum().backward()
    gradients = {name: parameter.grad.abs().max().item() for name, parameter in network.named_parameters()}
    assert gradients.pop("0.bias") < 1e-10 < 1e-5 < min(gradients[name] for name in ("2.bias", "7.bias"))


@pytest.mark.parametrize("name", ["HybridTrainer", "FAMILIES", "trainer_class"])
def test_nnunet_is_offered_trainers_alone(name):
    """What trains nothing by itself would end in a traceback."""
    assert hasattr(trainers, name)
    with pytest.raises(AttributeError, match="has no trainer"):
        getattr(nnunetv2_levit_plugin, name)
