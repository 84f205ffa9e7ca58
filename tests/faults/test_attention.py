"""``attention`` and ``cam``: models without attention, untrained folders, foreign cases and wrong places."""

import numpy as np
import pytest

from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from tests.analysis.test_attention_command import write_labels
from tests.inference.model_folders import write_case, write_model_folder
from tests.support.faults import assert_refused, run, snapshot

TRAINER = "LeViTUNetTrainer_128s_blocks1"
OTHERS = {
    "cnn": ("nnUNetTrainer", (32, 32)),
    "3d": ("nnUNetTrainer", (16, 32, 32)),
    "conv": ("LeViTUNetTrainer_128s_conv", (32, 32)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("attention")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(plugin_folder()))
        write_model_folder(root / "model", trainer=TRAINER, folds=(0,), patch_size=(32, 32))
        for name, (trainer, patch_size) in OTHERS.items():
            write_model_folder(root / name, trainer=trainer, folds=(0,), patch_size=patch_size)
        volume = np.random.default_rng(0).random((3, 36, 30)) * 100
        volume[2] = 0
        write_case(root / "images", "a", volume)
        write_case(root / "two", "a", volume)
        write_case(root / "two", "b", volume)
        write_case(root / "channels", "a", volume, channels=2)
        labels = np.zeros(volume.shape)
        labels[1, 8:20, 8:20] = 1
        write_labels(root / "labels", "a", labels)  # of another spacing than the images
        write_labels(root / "wrong", "a", labels * 9)
        write_labels(root / "nobody", "z", labels)
        (root / "empty").mkdir()
        (root / "file").write_text("x")
        (root / "a.png").write_bytes(b"x")
        (root / "untrained" / "fold_0").mkdir(parents=True)
        for name in ("plans.json", "dataset.json"):
            (root / "untrained" / name).write_text((root / "model" / name).read_text())
    return root


def call(command, *flags, model="model", images="images", output="out"):
    return lambda root: (command, "-m", root / model, "-i", root / images, "-o", root / output, *flags)


def attention(*flags, **places):
    return call("attention", *flags, **places)


def with_labels(folder, *flags):
    return lambda root: (*attention()(root), "--labels", root / folder, *flags)


# the command and a word of the sentence
FAULTS = {
    "no such model": (attention(model="nothing"), "no model folder"),
    "an untrained folder": (attention(model="untrained"), "no checkpoint_final.pth for fold 0"),
    "a fold that is not there": (attention("-f", 3), "for fold 3"),
    "another checkpoint": (attention("-chk", "checkpoint_best.pth"), "no checkpoint_best.pth"),
    "nnU-Net's own network": (attention(model="cnn"), "without attention"),
    "a hybrid without its transformer": (attention(model="conv"), "without attention"),
    "a 3D model": (attention(model="3d"), "is a 3D model"),
    "no images": (attention(images="nothing"), "no file or folder"),
    "an empty folder": (attention(images="empty"), "no images for this model"),
    "a file of another kind": (attention(images="a.png"), "no case of the model's dataset"),
    "a label file for an image": (attention(images="labels/a.nii.gz"), "no images for this model"),
    "too many channels": (attention(images="channels"), "channel files"),
    "the output is a file": (attention(output="file"), "is a file"),
    "no folder of labels": (with_labels("nothing"), "there is no folder"),
    "labels of other cases": (with_labels("nobody"), "lacks the labels of 1 cases, such as a.nii.gz"),
    "labels on another grid": (with_labels("labels"), "is not aligned"),
    "labels of another dataset": (with_labels("wrong"), "contains the label 9"),
    "a slice that is not there": (attention("--slice", 7), "has the slices 0 to 2, not 7"),
    "a slice before the first": (attention("--slice", -1), "not -1"),
    "an empty slice": (attention("--slice", 2), "is empty"),
    "a place outside": (attention("--query", "99,2"), "lies outside the slices of a, which have 36 x 30 voxels"),
    "a place that is no place": (attention("--query", "left"), "is no place"),
    "a place for two cases": (attention("--query", "9,9", images="two"), "belong to one case"),
    "a margin above 1": (attention("--margin", 2), "no fraction of Dice"),
    "knock-out without nnU-Net's folders": (attention("--knock-out"), "has no fold 0"),
    "cam, no such layer": (call("cam", "--layer", "nothing", model="cnn"), "no layer 'nothing'"),
    "cam, a 3D model": (call("cam", model="3d"), "is a 3D model"),
    "cam, a slice for two cases": (call("cam", "--slice", 1, images="two"), "belongs to one case"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_makes_no_sense_is_refused_with_a_sentence(fault, place, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(plugin_folder()))
    if fault.startswith("cam"):
        pytest.importorskip("pytorch_grad_cam")
    command, words = FAULTS[fault]
    before = snapshot(place)
    outcome = run(capsys, *command(place))
    if fault == "a place that is no place":  # argparse's own sentence
        assert outcome.code == 2
        assert words in outcome.err
    else:
        assert_refused(outcome, words)
    assert snapshot(place) == before
