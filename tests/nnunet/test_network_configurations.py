"""Configurations of any network: what is written into the plans, what nnU-Net builds from them, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.network_classes import check_network_classes
from nnunetv2_levit.trainers import trainer_class
from tests.inference.model_folders import _configuration
from tests.network_check import broken_networks as nets
from tests.support.faults import assert_refused, run, snapshot

MODULE = nets.__name__
DATASET = {
    "channel_names": {"0": "MRI", "1": "CT"},
    "labels": {"background": 0, "heart": 1, "lung": 2},
    "numTraining": 10,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def plans_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    path = tmp_path / "Dataset027_ACDC" / "nnUNetPlans.json"
    path.parent.mkdir()
    plans = {
        "dataset_name": "Dataset027_ACDC",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {
            "2d": _configuration((64, 64), 2, "Instance"),
            "3d_fullres": {**_configuration((8, 64, 64), 2, "Instance"), "median_image_size_in_voxels": [8, 64, 64]},
        },
    }
    path.write_text(json.dumps(plans))
    (path.parent / "dataset.json").write_text(json.dumps(DATASET))
    return path


def configured(capsys, plans_file, *flags):
    """Run ``configure``; the name of the new configuration, what was said, and the configuration itself."""
    before = set(json.loads(plans_file.read_text())["configurations"])
    done = run(capsys, "configure", "-d", "27", *flags)
    assert done.code == 0, done
    configurations = json.loads(plans_file.read_text())["configurations"]
    (name,) = set(configurations) - before
    return name, done.out, configurations[name]


def built(plans_file, name, *, trainer=nnUNetTrainer, deep_supervision=True):
    """The network as a trainer builds it from the plans, for two channels and three classes."""
    plans = PlansManager(json.loads(plans_file.read_text()))
    return trainer.build_network_architecture(plans, plans.get_configuration(name), 2, 3, deep_supervision)


@pytest.mark.parametrize("trainer", [nnUNetTrainer, trainer_class("HybridRecipeTrainer")], ids=lambda t: t.__name__)
def test_a_network_through_the_adapter(trainer, capsys, plans_file):
    name, said, entry = configured(capsys, plans_file, "--network", f"{MODULE}:MultiplesOf16", "--patch", "40", "56")
    assert name == "2d_p40x56_MultiplesOf16"
    assert entry == {
        "inherits_from": "2d",
        "patch_size": [40, 56],
        "architecture": {
            "network_class_name": ADAPTER,
            "arch_kwargs": {
                "network": f"{MODULE}.MultiplesOf16",
                "arguments": {"in_channels": "{channels}", "num_classes": "{classes}"},
                "image_size": [40, 56],
                "size_multiple": 16,
                "smallest_size": 1,
                "output": None,
                "strides": [[1, 1], [1, 1], [1, 1]],
            },
            "_kw_requires_import": [],
        },
    }
    assert "the plans name this package's adapter, which pads to multiples of 16" in said
    outputs = built(plans_file, name, trainer=trainer)(torch.randn(2, 2, 40, 56))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 40, 56)] * 2
    alone = built(plans_file, name, trainer=trainer, deep_supervision=False)
    assert alone(torch.randn(2, 2, 40, 56)).shape == (2, 3, 40, 56)


def test_nnunets_own_signature_is_named_directly_with_what_nnunet_planned(capsys, plans_file):
    name, said, entry = configured(capsys, plans_file, "--network", f"{MODULE}:NnUNetsOwn", "--batch", "6")
    # three planned strides are two scales, as the class has two outputs
    assert entry == {
        "inherits_from": "2d",
        "batch_size": 6,
        "architecture": {
            "network_class_name": f"{MODULE}.NnUNetsOwn",
            "arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2]]},
            "_kw_requires_import": [],
        },
    }
    assert "this package is not needed" in said
    assert [x.shape[2] for x in built(plans_file, name)(torch.randn(2, 2, 64, 64))] == [64, 32]


def test_another_network_of_nnunets_inherits_features_and_layers(capsys, plans_file):
    flags = ("--set", "n_blocks_per_stage=[1,1,1]", "--set", "nonlin=class:torch.nn.ReLU")
    name, _, entry = configured(
        capsys, plans_file, "--network", "dynamic_network_architectures.architectures.unet:ResidualEncoderUNet", *flags
    )
    architecture = entry["architecture"]
    assert architecture["network_class_name"] == "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    assert architecture["arch_kwargs"]["nonlin"] == "torch.nn.ReLU"
    assert architecture["arch_kwargs"]["features_per_stage"] == [8, 16, 32]
    assert set(architecture["_kw_requires_import"]) == {"conv_op", "norm_op", "nonlin"}
    network = built(plans_file, name)
    assert len(network(torch.randn(2, 2, 64, 64))) == 2
    assert not any(isinstance(module, torch.nn.LeakyReLU) for module in network.modules())


def test_heads_that_exist_in_training_alone_go_through_the_adapter(capsys, plans_file):
    name, _, entry = configured(capsys, plans_file, "--network", f"{MODULE}:HeadsOfTrainingAlone")
    assert entry["architecture"]["network_class_name"] == ADAPTER
    training, prediction = (built(plans_file, name, deep_supervision=on) for on in (True, False))
    prediction.load_state_dict(training.state_dict())


def test_registered_networks_and_their_heads(capsys, plans_file):
    name, _, entry = configured(
        capsys, plans_file, "--network", "levit_unet_128s", "--set", "auxiliary_heads=true", "--patch", "40", "56"
    )
    assert name == "2d_p40x56_levit_unet_128s"
    assert entry["architecture"]["arch_kwargs"]["strides"] == [[1, 1], [4, 4], [2, 2], [1, 1], [1, 1]]


def test_another_patch_of_the_same_network(capsys, plans_file):
    first, _, _ = configured(capsys, plans_file, "--network", f"{MODULE}:FixedSize", "--name", "fixed")
    name, _, entry = configured(capsys, plans_file, "--from", first, "--patch", "48", "80")
    assert name == "fixed_p48x80"
    assert entry["architecture"]["arch_kwargs"]["image_size"] == [48, 80]
    assert built(plans_file, name)(torch.randn(1, 2, 48, 80))[0].shape == (1, 3, 48, 80)


def test_the_batch_follows_from_the_memory(capsys, plans_file):
    network = ("--network", f"{MODULE}:Good")
    _, said, entry = configured(capsys, plans_file, *network, "--gpu-memory", "24")
    assert entry["batch_size"] == 4  # 5 % of the training voxels, as nnU-Net plans it: 10 x 8 x 64 x 64 / 64 / 64 / 20
    assert "a training step of batch 4 takes 0.6" in said
    before = snapshot(plans_file.parent)
    flags = (*network, "--gpu-memory", "0.65", "--patch", "1024", "1024", "--name", "large")
    assert_refused(run(capsys, "configure", "-d", "27", *flags), "1024x1024", "0.65 GiB", "--patch", "would fit")
    assert snapshot(plans_file.parent) == before


@pytest.mark.parametrize("what", [("--patch", "32", "48"), ("--network", f"{MODULE}:Good")], ids=lambda w: w[0])
def test_the_next_command_names_the_plans(what, capsys, plans_file):
    plans_file.rename(plans_file.with_name("pocket.json"))
    done = run(capsys, "configure", "-d", "27", "-p", "pocket", *what)
    assert done.code == 0, done
    assert "nnUNetv2_train 27 2d_" in done.out
    assert " -p pocket" in done.out


def test_no_batch_of_pictures_holds_more_than_five_percent_of_them(capsys, plans_file):
    plans = json.loads(plans_file.read_text())
    del plans["configurations"]["3d_fullres"]
    plans["configurations"]["2d"]["median_image_size_in_voxels"] = [320.0, 256.0]
    plans_file.write_text(json.dumps(plans))
    _, _, entry = configured(capsys, plans_file, "--network", f"{MODULE}:Good", "--gpu-memory", "24")
    assert entry["batch_size"] == 10  # 10 x 320 x 256 / 64 / 64 / 20


# flags, words of the sentence
FAULTS = {
    "nothing to do": ((), ("--patch, --network or --gpu-memory",)),
    "settings of nothing": (("--patch", "64", "64", "--set", "a=1"), ("--set belongs to a network",)),
    "no such network": (("--network", "unet"), ("no network 'unet'",)),
    "no such package": (("--network", "nowhere.x:Net"), ("needs the package nowhere",)),
    "no logits of full resolution": (("--network", f"{MODULE}:QuarterResolution"), ("give 3x",)),
    "a rectangle for squares": (
        ("--network", f"{MODULE}:SquareSide", "--patch", "64", "96"),
        ("64x96 is no square: choose a square patch",),
    ),
    "a failure in evaluation": (("--network", f"{MODULE}:FailsInEvaluation"), ("in evaluation",)),
    "a batch and a memory": (
        ("--network", f"{MODULE}:Good", "--batch", "4", "--gpu-memory", "8"),
        ("leave one of them out",),
    ),
    "no memory": (("--network", f"{MODULE}:Good", "--gpu-memory", "-1"), ("not above 0",)),
    "a memory without a network": (("--gpu-memory", "8"), ("give --network",)),
    "a memory that can't be counted": (
        ("--network", f"{MODULE}:BranchesOnValues", "--gpu-memory", "8"),
        ("can't be counted", "--batch"),
    ),
    "a 3D base": (("--network", f"{MODULE}:Good", "--from", "3d_fullres"), ("3d_fullres is not 2D",)),
    "no such base": (("--network", f"{MODULE}:Good", "--from", "2e"), ("no configuration '2e'",)),
    "a name of nnU-Net's": (("--network", f"{MODULE}:Good", "--name", "3d_lowres"), ("of nnU-Net's",)),
    "a name with __": (("--network", f"{MODULE}:Good", "--name", "a__b"), ("'__'",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_call_changes_nothing(fault, capsys, plans_file):
    flags, words = FAULTS[fault]
    before = snapshot(plans_file.parent)
    assert_refused(run(capsys, "configure", "-d", "27", *flags), *words)
    assert snapshot(plans_file.parent) == before


def test_plans_that_were_edited_by_hand_are_one_sentence(capsys, plans_file):
    name, _, _ = configured(capsys, plans_file, "--network", f"{MODULE}:Good")
    whole = json.loads(plans_file.read_text())
    keywords = whole["configurations"][name]["architecture"]["arch_kwargs"]
    del keywords["arguments"]
    plans_file.write_text(json.dumps(whole))
    assert_refused(run(capsys, "configure", "-d", "27", "--from", name, "--patch", "64", "64"), "without a network")
    whole["label_manager"] = "NoManager"
    plans_file.write_text(json.dumps(whole))
    flags = ("--network", f"{MODULE}:Good", "--name", "other")
    assert_refused(run(capsys, "configure", "-d", "27", *flags), "channels and classes", "plan the dataset anew")


def test_a_configuration_is_replaced_when_asked_alone(capsys, plans_file):
    good = ("--network", f"{MODULE}:Good", "--name", "mine")
    configured(capsys, plans_file, *good)
    assert run(capsys, "configure", "-d", "27", *good).code == 0
    other = (*good, "--batch", "8")
    assert_refused(run(capsys, "configure", "-d", "27", *other), "mine already", "--overwrite")
    assert run(capsys, "configure", "-d", "27", *other, "--overwrite").code == 0


def test_trainers_with_a_network_of_their_own_refuse_another_one(capsys, plans_file):
    name, _, _ = configured(capsys, plans_file, "--network", f"{MODULE}:Good")
    with pytest.raises(UserError, match="trains a network of its own, and this configuration names another one"):
        built(plans_file, name, trainer=trainer_class("LeViTUNetTrainer_128s"))


def plans_naming(network, arguments=None, network_class=ADAPTER):
    keywords = {"network": network, "arguments": arguments or {}, "image_size": [64, 64]}
    architecture = {"network_class_name": network_class, "arch_kwargs": keywords, "_kw_requires_import": []}
    return {"configurations": {"2d": {"architecture": architecture}}}


HARMLESS = {
    "a registered network": plans_naming("levit_unet_128s"),
    "MONAI's": plans_naming("monai.networks.nets.SegResNet", {"act": "RELU"}),
    "segmentation_models.pytorch's": plans_naming(
        "segmentation_models_pytorch.Unet", {"encoder_name": "tu-resnet50.a1_in1k"}
    ),
    "a layer": plans_naming("monai.networks.nets.SegResNet", {"norm": "class:torch.nn.BatchNorm2d"}),
    "what is not installed": plans_naming("nowhere.at.all.Net"),
}
DANGEROUS = {
    "a function": plans_naming("torch.hub.load"),
    "a class that is no network": plans_naming("subprocess.Popen"),
    "a name without a point": plans_naming("os"),
    "a class among the arguments": plans_naming("monai.networks.nets.SegResNet", {"a": ["class:subprocess.Popen"]}),
    "a dotted argument": plans_naming("monai.networks.nets.SegResNet", {"a": {"b": "os.system"}}),
    "a person's own network": plans_naming(f"{MODULE}.Good"),
    "an adapter within the adapter": plans_naming(ADAPTER, {"network": "levit_unet_128s"}),
    "the adapter by another way": plans_naming(
        "levit_unet_128s", network_class="nnunetv2_levit.nnunet.network_configurations.AdaptedNetwork"
    ),
}


@pytest.mark.parametrize("plans", HARMLESS.values(), ids=HARMLESS)
def test_harmless_networks_within_the_adapter_are_loaded(plans):
    check_network_classes(plans, Path("plans.json"))


@pytest.mark.parametrize("plans", DANGEROUS.values(), ids=DANGEROUS)
def test_what_the_adapter_would_import_is_checked_as_the_class_is(plans):
    with pytest.raises(UserError, match="--trust-checkpoint"):
        check_network_classes(plans, Path("plans.json"))
