"""Networks by name: what is found, what a class's arguments are taken for, and settings as text."""

import pytest

from nnunetv2_levit.any_network.names import find_network
from nnunetv2_levit.any_network.settings import parse_settings
from nnunetv2_levit.any_network.signature import complete_arguments, fill_in
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import REGISTRY

# a constructor's signature, settings, the arguments that follow
SIGNATURES = {
    "nnU-Net's": (
        "input_channels, num_classes, deep_supervision",
        {},
        {"input_channels": "{channels}", "num_classes": "{classes}", "deep_supervision": False},
    ),
    "MONAI's": (
        "spatial_dims, in_channels, out_channels, img_size",
        {},
        {
            "spatial_dims": 2,
            "in_channels": "{channels}",
            "out_channels": "{classes}",
            "img_size": "{image_size}",
        },
    ),
    "timm's": (
        "in_chans=3, num_classes=1000, img_size: int = 224",
        {},
        {"in_chans": "{channels}", "num_classes": "{classes}", "img_size": "{side}"},
    ),
    "many U-Nets'": (
        "n_channels, n_classes, bilinear=False",
        {"bilinear": True},
        {"bilinear": True, "n_channels": "{channels}", "n_classes": "{classes}"},
    ),
    "segmentation_models.pytorch's": (
        "encoder_name='resnet34', in_channels=3, classes=1",
        {},
        {"in_channels": "{channels}", "classes": "{classes}"},
    ),
    "named by a person": (
        "planes, out, in_channels=3",
        {"planes": "{channels}", "out": "{classes}", "in_channels": 8},
        {"planes": "{channels}", "out": "{classes}", "in_channels": 8},
    ),
}


def class_with(signature):
    scope: dict = {}
    exec(f"class Net:\n    def __init__(self, {signature}): pass", scope)
    return scope["Net"]


@pytest.mark.parametrize(("signature", "settings", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_arguments_are_found_under_the_names_that_people_use(signature, settings, expected):
    assert complete_arguments(class_with(signature), settings) == expected


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match="needs depth, width: give them with --set depth="):
        complete_arguments(class_with("in_channels, num_classes, depth, width"), {})
    with pytest.raises(UserError, match="number of classes"):
        complete_arguments(class_with("in_channels"), {})


def test_placeholders_are_filled_in_wherever_they_stand():
    filled = fill_in(
        {"a": "{channels}", "b": ["{height}", {"c": "{width}"}], "d": "{image_size}", "e": "x"},
        channels=2,
        classes=5,
        image_size=(40, 56),
    )
    assert filled == {"a": 2, "b": [40, {"c": 56}], "d": (40, 56), "e": "x"}
    with pytest.raises(UserError, match="no square"):
        fill_in("{side}", channels=1, classes=2, image_size=(40, 56))


def test_settings_are_json_python_or_text():
    words = ["a=3", "b=[1,2]", "c=(1, 2)", "d=None", "e=true", "f=batch", "g=1e-3", "h={'x': 1}", "i={channels}", "j="]
    assert parse_settings(words) == {
        **{"a": 3, "b": [1, 2], "c": [1, 2], "d": None, "e": True, "f": "batch", "g": 1e-3, "h": {"x": 1}},
        **{"i": "{channels}", "j": ""},
    }


@pytest.mark.parametrize("name", ["levit_unet_128s", next(iter(reversed(REGISTRY)))])
def test_registered_networks_are_found_by_their_name(name):
    found = find_network(name)
    assert found.target == name == found.plain_name
    assert found.takes_image_size


@pytest.mark.parametrize(
    ("name", "target", "plain", "encoder"),
    [
        ("smp:Unet/resnet18", "segmentation_models_pytorch.Unet", "smp_Unet_resnet18", "resnet18"),
        ("timm:convnext_atto", "segmentation_models_pytorch.Unet", "timm_convnext_atto", "tu-convnext_atto"),
        ("monai:SegResNet", "monai.networks.nets.SegResNet", "monai_SegResNet", None),
        ("monai.networks.nets:SegResNet", "monai.networks.nets.SegResNet", "SegResNet", None),
    ],
)
def test_names_of_other_packages(name, target, plain, encoder):
    pytest.importorskip(target.split(".")[0])
    found = find_network(name)
    assert (found.target, found.plain_name) == (target, plain)
    assert found.arguments.get("encoder_name") == encoder
    assert found.arguments.get("encoder_weights") is None
