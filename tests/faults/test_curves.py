"""Training logs as they should not be."""

import json

import pytest

from tests.evaluation.test_training_curves import EPOCH_TEXT, fold  # noqa: F401 (a fixture)
from tests.support.faults import assert_refused, run, snapshot

STAMP = "2026-11-20 05:37:41.1: "


def _added(text):
    def damage(folder):
        (folder / "training_log_b.txt").write_text(text)

    return damage


def _replaced(old, new):
    def damage(folder):
        log = folder / "training_log_a.txt"
        log.write_text(log.read_text().replace(old, new))

    return damage


def _emptied(content):
    def damage(folder):
        (folder / "training_log_a.txt").write_bytes(content)

    return damage


REFUSED = {
    "a word for a loss": (_replaced("val_loss 0.1", "val_loss low"), ["training_log_a.txt, line 4", "'low'"]),
    "a word for a Dice": (_replaced("0.5]", "good]"), ["line 5", "'good'"]),
    "a word for a time": (_replaced("31.53 s", "long s"), ["line 6", "'long'"]),
    "a word for the validation": (_added(STAMP + "Mean Validation Dice: high\n"), ["training_log_b.txt, line 1"]),
    "an epoch without end": (_added(STAMP + "Epoch " + "9" * 30 + "\n"), ["training_log_b.txt, line 1", "epoch"]),
    "another training's log": (_added(EPOCH_TEXT.format(5, 0.1).replace(", 0.5]", "]")), ["number of structures"]),
    "a log that is a folder": (lambda folder: (folder / "training_log_b.txt").mkdir(), ["training_log_b.txt"]),
    "a log that points nowhere": (
        lambda folder: (folder / "training_log_b.txt").symlink_to("x"),
        ["training_log_b.txt"],
    ),
    "bytes": (_emptied(bytes(range(256)) * 9), ["fold_0", "no finished epoch"]),
    "nothing": (_emptied(b""), ["fold_0", "no finished epoch"]),
    "a broken dataset.json": (lambda folder: (folder.parent / "dataset.json").write_text("[]"), ["dataset.json"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_logs_are_refused(kind, fold, tmp_path, capsys):  # noqa: F811
    damage, words = REFUSED[kind]
    damage(fold)
    before = snapshot(tmp_path)
    assert_refused(run(capsys, "curves", fold, "-o", tmp_path / "out" / "c.json"), *words)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["c.png", "c.PNG", "fold", "file/c.json", "/proc/none/c.json"])
def test_outputs_are_refused(name, fold, tmp_path, capsys):  # noqa: F811
    (tmp_path / "fold").mkdir()
    (tmp_path / "file").write_text("")
    before = snapshot(tmp_path)
    assert_refused(run(capsys, "curves", fold, "-o", tmp_path / name), name.split("/")[0])
    assert snapshot(tmp_path) == before


DIVERGED = {
    "no number": (_replaced("val_loss 0.1", "val_loss nan"), "val_loss", None),
    "infinite": (_replaced("train_loss -0.0912", "train_loss inf"), "train_loss", None),
    "a loss that is missing": (_replaced(STAMP[:-6] + "41.2: val_loss 0.1 \n", ""), "val_loss", None),
    "no Dice at all": (_replaced("Pseudo dice", "Dice"), "pseudo_dice", []),
    "huge": (_replaced("val_loss 0.1", "val_loss 1e300"), "val_loss", 1e300),
}


@pytest.mark.parametrize("kind", DIVERGED)
def test_what_a_diverged_training_logs_is_a_gap(kind, fold, tmp_path, capsys):  # noqa: F811
    damage, key, value = DIVERGED[kind]
    damage(fold)
    outcome = run(capsys, "curves", fold, "-o", tmp_path / "c.json")
    assert outcome.code == 0, outcome
    (content,) = json.loads((tmp_path / "c.json").read_text())
    assert content["epochs"][0][key] == value
    assert (tmp_path / "c.png").is_file()
