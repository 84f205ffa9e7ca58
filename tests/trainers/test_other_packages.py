"""Families that other packages declare by entry points: their networks and their trainers by name."""

from importlib.metadata import EntryPoint

import pytest
import torch

from nnunetv2_levit import network_architectures
from nnunetv2_levit.benchmark.networks import build, measurable
from nnunetv2_levit.network_architectures import entry_points
from nnunetv2_levit.nnunet import network_classes
from nnunetv2_levit.trainers import naming
from nnunetv2_levit.trainers.listing import list_trainers

HERE = "tests.network_architectures.toy_family"


@pytest.fixture
def declared(monkeypatch):
    """Declare entry points for the length of a test."""
    functions = (
        *(network_architectures.register_other_packages, naming.register_other_packages),
        *(entry_points.declared, entry_points.registered_packages, naming.trainer_class),
    )

    def forget():
        for function in functions:
            function.cache_clear()

    def declare(**values):
        entries = [
            EntryPoint(name=group, value=value, group=getattr(entry_points, group)) for group, value in values.items()
        ]
        monkeypatch.setattr(
            entry_points, "entry_points", lambda *, group: [entry for entry in entries if entry.group == group]
        )
        forget()

    monkeypatch.setattr(network_architectures, "REGISTRY", dict(network_architectures.REGISTRY))
    monkeypatch.setattr(naming, "FAMILIES", dict(naming.FAMILIES))
    yield declare
    monkeypatch.undo()
    forget()


def test_a_trainer_of_another_package_is_known_by_name(declared, monkeypatch):
    declared(NETWORKS=f"{HERE}:FAMILY", TRAINERS=f"{HERE}:TRAINERS")
    assert "toy_small" in network_architectures.list_networks()
    monkeypatch.setattr("nnunetv2_levit.trainers.listing.FAMILIES", naming.FAMILIES)
    assert list_trainers()["families"]["ToyTrainer"]["sizes"] == ["small", "large"]
    trainer = naming.trainer_class("ToyTrainer_large_5epochs")
    assert trainer.num_epochs_override == 5

    class Configuration:
        patch_size = (32, 48)

    network = trainer.build_network_architecture(None, Configuration(), 1, 3, False)
    assert network(torch.randn(1, 1, 32, 48)).shape == (1, 3, 32, 48)
    assert entry_points.registered_packages() == ("tests",)
    network_classes.check_network_classes(
        {"configurations": {"2d": {"architecture": {"network_class_name": f"{HERE}.Toy"}}}}, "plans.json"
    )


def test_a_network_of_another_package_is_benchmarked(declared):
    declared(NETWORKS=f"{HERE}:FAMILY")
    assert "toy_small" in measurable()
    assert type(build("toy_small", in_channels=1, num_classes=3, patch_size=(32, 48))).__name__ == "Toy"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.at.all:FAMILY", "can't be loaded"),
        (f"{HERE}:WIDTHS", "is no "),
        (f"{HERE}:NOTHING", "can't be loaded"),
    ],
)
def test_a_broken_package_is_left_out_with_a_warning(value, said, declared):
    declared(NETWORKS=value)
    with pytest.warns(UserWarning, match=said):
        assert "levit_unet_384" in network_architectures.list_networks()


def test_a_name_that_is_taken_stays(declared, monkeypatch):
    declared(NETWORKS=f"{HERE}:FAMILY")
    mine = network_architectures.REGISTRY["levit_unet_384"]
    monkeypatch.setattr(
        f"{HERE}.FAMILY",
        network_architectures.Family(networks={"levit_unet_384": dict}, smallest=("levit_unet_384",), others="wider"),
    )
    network_architectures.list_networks()
    assert network_architectures.REGISTRY["levit_unet_384"] is mine
