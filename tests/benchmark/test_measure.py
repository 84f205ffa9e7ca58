import json

import pytest
import torch

from nnunetv2_levit import cli
from nnunetv2_levit.benchmark.measure import multiply_adds
from nnunetv2_levit.network_architectures import create


@pytest.mark.parametrize(
    ("name", "gmac"),
    [("levit_unet_128s", 17.55), ("levit_unet_192", 18.92), ("levit_unet_384", 25.55), ("unet2022_tiny", 9.35)],
)
def test_multiply_adds_of_the_papers(name, gmac):
    network = create(name, in_channels=1, num_classes=9, image_size=(224, 224)).eval()
    assert multiply_adds(network, torch.zeros(1, 1, 224, 224)) / 1e9 == pytest.approx(gmac, rel=0.02)


def test_the_command_writes_a_table_and_json(tmp_path, capsys):
    out = tmp_path / "cost.json"
    cli.main(
        ["benchmark", "--networks", "levit_unet_128s", "--patch", "32", "64", "--repetitions", "1", "-o", str(out)]
    )
    rows = json.loads(out.read_text())["rows"]
    assert [row["patch_size"] for row in rows] == [[32, 32], [64, 64]]
    assert all(row["seconds_per_image"] > 0 and row["parameters"] > 15e6 for row in rows)
    assert rows[1]["gmac_per_image"] > 3.5 * rows[0]["gmac_per_image"]
    assert capsys.readouterr().out.count("| levit_unet_128s |") == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--networks", "unet"], "not registered"),
        (["--networks", "levit_unet_128s", "--patch", "8"], "32 to 1024"),
        (["--batch", "0"], "at least 1"),
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
