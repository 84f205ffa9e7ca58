import json
import os

import pytest

from nnunetv2_levit import cli
from nnunetv2_levit.evaluation.training_curves import read_fold

LINES = (
    "10.1: Epoch {0}",
    "10.2: Current learning rate: {1}",
    "41.1: train_loss -0.{0}912",
    "41.2: val_loss 0.1",
    "41.3: Pseudo dice [np.float32(0.{0}934), np.float32(nan), 0.5]",
    "41.4: Epoch time: 31.53 s",
)
EPOCH_TEXT = "".join(f"2026-11-20 05:37:{line} \n" for line in LINES)


@pytest.fixture
def fold(tmp_path):
    folder = tmp_path / "Trainer__plans__2d" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "training_log_a.txt").write_text(
        EPOCH_TEXT.format(0, 0.1) + EPOCH_TEXT.format(1, 0.2) + "2026-11-20 05:38:00.1: Epoch 2 \n"
    )
    return folder


def test_logs_of_a_resumed_training_are_joined(fold):
    (fold / "training_log_b.txt").write_text(
        EPOCH_TEXT.format(1, 0.3) + "2026-11-20 06:00:00.1: Mean Validation Dice:  0.8123 \n"
    )
    run = read_fold(fold)
    assert [epoch["epoch"] for epoch in run["epochs"]] == [0, 1]
    assert [epoch["learning_rate"] for epoch in run["epochs"]] == [0.1, 0.3]
    assert run["epochs"][1]["train_loss"] == -0.1912
    assert run["epochs"][0]["pseudo_dice"] == [0.0934, None, 0.5]
    assert run["epochs"][0]["seconds"] == 31.53
    assert run["mean_validation_dice"] == 0.8123


def test_a_training_begun_anew_leaves_nothing_of_the_one_before(fold):
    with (fold / "training_log_a.txt").open("a") as old:
        old.write("2026-11-20 06:00:00.1: Mean Validation Dice:  0.8123 \n")
    anew = fold / "training_log_b.txt"
    anew.write_text(EPOCH_TEXT.format(0, 0.3).replace("2026-11-20", "2026-11-21"))
    os.utime(anew, (0, 0))  # a copy has another time
    run = read_fold(fold)
    assert [(epoch["epoch"], epoch["learning_rate"]) for epoch in run["epochs"]] == [(0, 0.3)]
    assert run["mean_validation_dice"] is None


def test_the_command_writes_json_and_a_picture(fold, tmp_path):
    out = tmp_path / "out" / "curves.json"
    cli.main(["curves", str(fold), str(fold), "-o", str(out)])
    assert len(json.loads(out.read_text())) == 2
    assert out.with_suffix(".png").stat().st_size > 5000


def test_a_folder_without_logs_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["curves", str(tmp_path), "-o", str(tmp_path / "x.json")])
    assert stop.value.code == 2
    assert "training_log" in capsys.readouterr().err
