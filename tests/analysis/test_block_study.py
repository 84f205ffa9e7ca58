"""The study of blocks in one command: names, the printed rows, the table, and once the whole chain on a phantom."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nnunetv2_levit as levit
from nnunetv2_levit import tables, trainers
from nnunetv2_levit.analysis import block_study as module
from nnunetv2_levit.analysis.block_study import printed_rows, tuning_name
from nnunetv2_levit.trainers import naming
from tests.conftest import DATASET_ID
from tests.support.nnunet_programs import call_program

CONFIGURATION = "2d_p48x40"


@pytest.mark.parametrize(
    ("trainer", "iterations", "name"),
    [
        ("TransUNetTrainer_3blocks", 250, "TransUNetTrainer_3blocks_1epochs"),
        ("TransUNetTrainer_pretrained", 2500, "TransUNetTrainer_10epochs"),
        ("LeViTUNetTrainer_128s_50iterations_30epochs", 7, "LeViTUNetTrainer_128s_7iterations_1epochs"),
        ("UNet2022Trainer_100epochs", 500, "UNet2022Trainer_2epochs"),
        ("UNet2022Trainer", 251, "UNet2022Trainer_126iterations_2epochs"),
    ],
)
def test_a_fine_tuning_has_a_trainers_name(trainer, iterations, name):
    assert tuning_name(trainer, iterations) == name
    naming.check_canonical(name)  # as `train` does


def test_the_attention_studys_own_rows():
    rows = printed_rows("TransUNetTrainer_pretrained")
    assert [row["method"] for row in rows] == ["TransUNet, 12 blocks", "TransUNet, 3 blocks", "TransUNet, 1 block"]
    assert rows[2]["values"]["IBSR 18"] == 0.865
    assert [row["method"] for row in printed_rows("UNETR2DTrainer")] == ["2D UNETR, 12 blocks", "2D UNETR, 3 blocks"]
    assert printed_rows("LeViTUNetTrainer") == []


def test_the_table_puts_printed_rows_beside_measured_ones():
    mean = {"structures": 3, "mean": 0.8, "ci95": [0.75, 0.85]}
    row = {"blocks": 12, "parameters": 100_000_000, "dice": mean, "hd95": {**mean, "mean": 4.0, "ci95": None}}
    result = {
        "trainer": "TransUNetTrainer",
        "fold": 0,
        "cases": 8,
        "iterations": 250,
        "rows": [
            {**row, "dice_without_fine_tuning": 0.78},
            {**row, "blocks": 3, "parameters": 40_000_000, "dice_without_fine_tuning": None},
        ],
        "printed": printed_rows("TransUNetTrainer"),
    }
    text = tables.block_study_markdown(result)
    assert "| 12 | 100.00 | +0 | 78.00 | 80.00 [75.00, 85.00] | 4.00 |" in text
    assert "| 3 | 40.00 | -60 | – |" in text
    assert "| TransUNet, 3 blocks | 0.860 | 0.760 | 0.824 | -61 |" in text


@pytest.fixture
def trained(preprocessed, monkeypatch, tmp_path):
    """A trained-model folder of LeViT-UNet-128s with two blocks a stage, random but for the state of training."""
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    (source,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")
    plans, dataset = (json.loads((source / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    torch.manual_seed(0)
    cls = trainers.trainer_class("LeViTUNetTrainer_128s_blocks2")
    trainer = cls({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, torch.device("cpu"))
    trainer.initialize()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    model = Path(trainer.output_folder_base)
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        (model / name).write_text(json.dumps(content))
    return model


def in_this_process(command, *, env, stdout, stderr, check):
    """`subprocess.run` for the package's own command, without the cost of importing torch and nnU-Net anew."""
    assert command[:3] == [sys.executable, "-m", "nnunetv2_levit.cli"]
    said = call_program("nnunetv2_levit", *command[3:], environment={**env, "nnUNet_n_proc_DA": "0"})
    stdout.write(said.encode())
    return subprocess.CompletedProcess(command, returncode=0)


@pytest.mark.slow
def test_the_whole_study_and_once_more(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=in_this_process, STDOUT=subprocess.STDOUT))
    out = tmp_path / "out"
    result = levit.block_study(trained, output=out, blocks=(1,), iterations=1)
    (row,) = result["rows"]
    assert row["trainer"] == "LeViTUNetTrainer_128s_blocks1_1iterations_1epochs"
    assert row["dice"]["mean"] is not None
    assert row["dice_without_fine_tuning"] is not None
    assert {"blocks.json", "blocks.md", "blocks.html", "knock_out.json", "truncated_1"} <= {
        p.name for p in out.iterdir()
    }
    assert not list((tmp_path / "results").glob("*/*_blocks1_*"))  # nothing among the user's own results

    def again(*_, **__):
        raise AssertionError("what is done is not done again")

    monkeypatch.setattr(module.subprocess, "run", again)
    monkeypatch.setattr(module, "truncate", again)
    assert levit.block_study(trained, output=out, blocks=(1,), iterations=1) == result
    checkpoint = trained / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "current_epoch": 7}, checkpoint)
    with pytest.raises(levit.UserError, match="made of another checkpoint"):
        levit.block_study(trained, output=out, blocks=(1,), iterations=1)


FAULTS = {
    "too many blocks": ({"blocks": (3,)}, "has 1 to 2 transformer blocks"),
    "no block": ({"blocks": (0,)}, "not 0"),
    "a number twice": ({"blocks": (1, 1)}, "named twice"),
    "no number": ({"blocks": ()}, "no number of blocks"),
    "no iteration": ({"blocks": (1,), "iterations": 0}, "at least 1 iteration"),
    "a margin above 1": ({"blocks": (1,), "margin": 7}, "no fraction of Dice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_impossible_numbers_are_refused(fault, trained, tmp_path):
    arguments, words = FAULTS[fault]
    with pytest.raises(levit.UserError, match=words):
        levit.block_study(trained, output=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_without_the_dataset_it_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(levit.UserError, match="nnUNet_preprocessed is not set"):
        levit.block_study(trained, output=tmp_path / "out", blocks=(1,))
