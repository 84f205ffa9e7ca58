"""``attention``, ``truncate``, ``blocks`` and ``cam`` of models whose plans name the network within the adapter."""

import numpy as np
import pytest

import nnunetv2_levit as levit
from nnunetv2_levit import cli
from nnunetv2_levit.analysis.dispensable_blocks import conclusion
from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.network_architectures import create
from tests.inference.model_folders import write_case, write_model_folder
from tests.network_check import broken_networks as nets
from tests.support.faults import assert_refused, run, snapshot

PATCH = (40, 32)
NAME, BLOCKS = "levit_unet_128s", {"blocks": 1}
SHARED = {"in_channels": "{channels}", "num_classes": "{classes}"}
NETWORKS = {
    "registered": {"network": NAME, "arguments": {**SHARED, "image_size": "{image_size}", **BLOCKS}},
    "padded": {
        "network": NAME, "size_multiple": 64, "arguments": {**SHARED, "image_size": "{image_size}", **BLOCKS},
    },
    "foreign": {"network": f"{nets.__name__}.MultiplesOf16", "size_multiple": 16, "arguments": SHARED},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapted")
    for name, keywords in NETWORKS.items():
        architecture = {
            "network_class_name": ADAPTER,
            "arch_kwargs": {**keywords, "image_size": list(PATCH)},
            "_kw_requires_import": [],
        }
        write_model_folder(root / name, folds=(0,), patch_size=PATCH, architecture=architecture)
    write_case(root / "images", "a", 10 + np.random.default_rng(0).random((2, 40, 32)) * 100, spacing=1.5)
    return root


def test_attention_is_that_of_the_registered_network_within(place, tmp_path, capsys):
    words = ("-m", place / "registered", "-i", place / "images", "-o", tmp_path / "out", "--query", "9,9")
    cli.main(["attention", *map(str, words)])
    assert "outside the transformer blocks" in capsys.readouterr().out
    result = levit.attention(
        place / "registered", images=place / "images", output=tmp_path / "again", queries=[(9.0, 9.0)]
    )
    bare = create(NAME, in_channels=1, num_classes=4, image_size=PATCH, **BLOCKS)
    assert result["share"]["parameters"]["network"] == sum(parameter.numel() for parameter in bare.parameters())
    names = dict(bare.named_modules())
    layers = result["cases"][0]["layers"]
    assert len(layers) == 5  # a block in each of three stages, and two subsamplings
    assert all(layer["name"] in names for layer in layers)
    assert result["share"]["multiply_adds"]["transformer_blocks"] > 0
    assert (tmp_path / "out" / "attention.html").is_file()


# model, command, words of the sentence
REFUSED = {
    "attention of padded patches": ("padded", ("attention",), ("patches that the adapter pads", "cam")),
    "attention of a foreign network": ("foreign", ("attention",), ("trains MultiplesOf16", "without attention", "cam")),
    "truncate": ("registered", ("truncate", "--blocks", "1"), ("the plans name the network LeViTUNet",)),
    "truncate a foreign network": (
        "foreign", ("truncate", "--blocks", "1"), ("the plans name the network MultiplesOf16",),
    ),
    "blocks": ("registered", ("blocks", "--blocks", "1"), ("the plans name the network LeViTUNet",)),
    "blocks of a foreign network": ("foreign", ("blocks",), ("without attention",)),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_apply_is_one_sentence(fault, place, capsys):
    model, command, words = REFUSED[fault]
    flags = ["-m", place / model, "-o", place / "out", *command[1:], "--trust-checkpoint"]
    if command[0] == "attention":
        flags += ["-i", place / "images"]
    before = snapshot(place)
    assert_refused(run(capsys, command[0], *flags), *words)
    assert snapshot(place) == before


def test_no_command_is_proposed_that_would_refuse():
    dice = {"mean": 0.0, "ci95": None}
    rows = [{"series": "cumulative", "what": "block", "kept": 1, "title": "1 block", "dice": dice}]
    found = {model: conclusion(rows, margin=0.01, several_stages=False, model=model) for model in ("model", None)}
    assert found["model"]["command"].startswith("nnunetv2_levit truncate -m model --blocks 1")
    assert found[None]["command"] is None
    assert found[None]["sentence"] == found["model"]["sentence"]


@pytest.mark.parametrize("model", ["registered", "foreign"])
def test_class_activation_is_there_for_any_network(model, place, tmp_path):
    pytest.importorskip("pytorch_grad_cam")
    result = levit.class_activation(
        place / model, images=place / "images", output=tmp_path / "out", trust_checkpoint=True
    )
    assert (tmp_path / "out" / "a.png").is_file()
    assert result["layers"][0].startswith("encoder" if model == "registered" else "network")
