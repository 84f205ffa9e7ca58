import importlib
import json
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from nnunetv2_levit import cli
from nnunetv2_levit.benchmark import measure
from nnunetv2_levit.benchmark.measure import multiply_adds
from nnunetv2_levit.benchmark.memory import peak_memory
from nnunetv2_levit.benchmark.networks import build
from nnunetv2_levit.benchmark.steps import make_step
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.layers import upsampled_convolution

EXPERIMENTS = Path(__file__).resolve().parents[2] / "docs" / "lab" / "experiments"


@pytest.mark.parametrize(
    ("name", "gmac"),
    [("levit_unet_128s", 17.55), ("levit_unet_192", 18.92), ("levit_unet_384", 25.55), ("unet2022_tiny", 9.35)],
)
def test_multiply_adds_of_the_papers(name, gmac, monkeypatch):
    network = create(name, in_channels=1, num_classes=9, image_size=(224, 224)).eval()
    monkeypatch.setattr(upsampled_convolution, "pays", lambda *_: False)  # in the order of the paper
    assert multiply_adds(network, torch.zeros(1, 1, 224, 224)) / 1e9 == pytest.approx(gmac, rel=0.02)


class SelfAttention(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x)[0] if isinstance(self.layer, torch.nn.MultiheadAttention) else self.layer(x)


TOKENS, WIDTH = 64, 32
ATTENTION = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH  # projections of q, k, v and the result; q k and weights v


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True), ATTENTION),
        (
            torch.nn.TransformerEncoderLayer(WIDTH, 4, dim_feedforward=4 * WIDTH, batch_first=True),
            ATTENTION + 8 * TOKENS * WIDTH**2,
        ),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_attention_is_counted_however_it_is_computed(layer, expected, training):
    """torch's counter knows neither the fused attention of CPUs nor the fused layers of evaluation."""
    network = SelfAttention(layer.train(training))
    assert multiply_adds(network, torch.zeros(1, TOKENS, WIDTH)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("name", "gmac"), [("levit_unet_128s", 9.2), ("levit_unet_384", 12.3)])
def test_mixing_channels_before_upsampling_halves_the_multiply_adds(name, gmac):
    network = create(name, in_channels=1, num_classes=9, image_size=(224, 224)).eval()
    assert multiply_adds(network, torch.zeros(1, 1, 224, 224)) / 1e9 == pytest.approx(gmac, rel=0.02)


@pytest.mark.parametrize(("name", "millions", "gmac"), [("nnunet_plain", 20.6, 10.9), ("nnunet_resenc_m", 71.8, 24.2)])
def test_nnunets_networks_are_those_that_it_plans(name, millions, gmac):
    """Parameters and multiply-adds of the networks that nnU-Net 2.8.1 planned for 224 x 224 (6 stages)."""
    network = build(name, in_channels=1, num_classes=9, patch_size=(224, 224)).eval()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert multiply_adds(network, torch.zeros(1, 1, 224, 224)) / 1e9 == pytest.approx(gmac, abs=0.05)


def test_the_command_writes_json_a_table_and_a_figure(tmp_path, capsys):
    out = tmp_path / "cost.json"
    what = "--networks levit_unet_128s nnunet_plain --patch 32 64x48 --batch 2 4 --modes inference folded training"
    cli.main(["benchmark", *what.split(), "--repetitions", "1", "--no-memory", "-o", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["network"], *row["patch_size"], row["batch_size"]) for row in rows] == [
        (name, *patch, batch)
        for patch in ((32, 32), (64, 48))
        for batch in (2, 4)
        for name in ("levit_unet_128s", "nnunet_plain")
    ]
    for row in rows:
        assert list(row["seconds_per_image"]) == ["inference", "folded", "training"]
        assert all(seconds > 0 for seconds in row["seconds_per_image"].values())
    assert rows[4]["gmac_per_image"] > 2.5 * rows[0]["gmac_per_image"]
    assert capsys.readouterr().out.count("| levit_unet_128s |") == 4
    assert out.with_suffix(".md").read_text().count("| nnunet_plain | 64×48 |") == 2
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_what_can_not_be_measured_is_said_and_the_rest_is_measured(tmp_path, monkeypatch, capsys):
    """One image of 32 x 32 leaves a single token, on which batch norm can't be trained; and memory that runs out."""

    def scarce(network, mode, *, images, num_classes, autotune):
        def fail():
            raise RuntimeError("CUDA out of memory.")

        step = make_step(network, mode, images=images, num_classes=num_classes)
        return fail if isinstance(network, PlainConvUNet) and mode == "training" else step

    monkeypatch.setattr(measure, "make_step", scarce)
    out = tmp_path / "cost.json"
    what = "--networks levit_unet_128s nnunet_plain --patch 32 --modes inference training"
    cli.main(["benchmark", *what.split(), "--repetitions", "1", "--no-memory", "-o", str(out)])
    levit, nnunet = json.loads(out.read_text())["rows"]
    assert "more than one value" in levit["not_measured"]["training"]
    assert nnunet["not_measured"] == {"training": "out of memory"}
    for row in (levit, nnunet):
        assert row["seconds_per_image"]["inference"] > 0
        assert row["seconds_per_image"]["training"] is None
    assert "nnunet_plain, training, batch 1 of 32x32 not measured: out of memory" in capsys.readouterr().out
    assert out.with_suffix(".png").is_file()


def test_a_network_that_can_not_be_exported_leaves_the_others(monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("torch.onnx.export", _export_fails)
    name = "tests.network_check.broken_networks:BranchesOnValues"
    result = measure.run(
        networks=[name], patch_sizes=[(32, 32)], modes=["inference", "onnx"], repetitions=1, memory=False
    )
    (row,) = result["rows"]
    assert row["seconds_per_image"]["inference"] > 0
    assert "can't be exported to ONNX (ValueError: data-dependent)" in row["not_measured"]["onnx"]


def _export_fails(*_, **__):
    raise RuntimeError("Failed to export the model\nadvice") from ValueError("data-dependent\nmore")


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_training_takes_more_memory_than_inference(device):
    peak = {
        mode: peak_memory("nnunet_plain", mode, shape=(8, 1, 64, 64), num_classes=2, device=device)
        for mode in ("inference", "training")
    }
    assert 0 < peak["inference"] < peak["training"]


def test_networks_take_turns():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repetitions=3)
    assert order == ["a", "b"] * 5
    assert set(seconds) == {"a", "b"}


@pytest.mark.parametrize(("mode", "autotune"), [("inference", False), ("inference", True), ("training", False)])
def test_cudnn_is_autotuned_in_training_and_elsewhere_if_asked(mode, autotune):
    class Noting(torch.nn.Conv2d):
        def forward(self, x):
            noted.append(torch.backends.cudnn.benchmark)
            return super().forward(x)

    noted = []
    make_step(Noting(1, 2, 1), mode, images=torch.zeros(1, 1, 4, 4), num_classes=2, autotune=autotune)()
    assert noted == [mode == "training" or autotune]
    assert not torch.backends.cudnn.benchmark


def test_a_network_that_does_not_compile_costs_no_other_figure(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    order = []

    def fail():
        raise RuntimeError("no compiler")

    steps = {("a", "compiled"): fail, ("a", "plain"): lambda: order.append("a"), ("b", "compiled"): lambda: None}
    parts = [set(part) for part in importlib.import_module("networks_speed").measured(steps, repetitions=1)]
    assert parts == [{("a", "plain")}, {("a", "plain"), ("b", "compiled")}, {("a", "plain"), ("b", "compiled")}]
    assert order == ["a"] * 6


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--networks", "unet"], "not registered"),
        (["--networks", "levit_unet_128s", "--patch", "8"], "32 to 1024"),
        (["--batch", "0"], "at least 1"),
        (["--modes", "guess"], "choose from inference"),
        (["--patch", "a"], "neither a side"),
        (["--networks", "nnunet_plain", "--patch", "100"], "but 112x112"),
    ],
)
def test_bad_requests_are_one_sentence(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        cli.main(["benchmark", "--device", "cuda"])
    assert "no CUDA device" in capsys.readouterr().err


def test_the_arguments_of_a_class_are_set(tmp_path):
    name, out = "tests.network_check.broken_networks:NeedsWidths", tmp_path / "cost.json"
    flags = (
        "--set planes_in={channels} --set planes_out={classes} --set widths=[6] --patch 32 --repetitions 1 --no-memory"
    )
    cli.main(["benchmark", "--networks", "nnunet_plain", name, *flags.split(), "-o", str(out)])
    result = json.loads(out.read_text())
    assert result["settings"]["widths"] == [6]
    assert result["rows"][1]["parameters"] == (9 + 1) * 6 + (6 + 1) * 4
    widths = {"blocks": 1}
    fewer, all_blocks = (
        build("levit_unet_128s", in_channels=1, num_classes=4, patch_size=(32, 32), settings=settings)
        for settings in (widths, None)
    )
    assert len(fewer.state_dict()) < len(all_blocks.state_dict())
    with pytest.raises(UserError, match="can't be built with"):
        build("levit_unet_128s", in_channels=1, num_classes=4, patch_size=(32, 32), settings={"width": 3})


def test_any_network_is_built_within_the_adapter():
    name = "tests.network_check.broken_networks:MultiplesOf16"
    network = build(name, in_channels=2, num_classes=3, patch_size=(40, 56)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, 40, 56)).shape == (1, 3, 40, 56)
    with pytest.raises(UserError, match="needs the package nowhere"):
        build("nowhere.nets:Net", in_channels=2, num_classes=3, patch_size=(40, 56))
