"""``predict``: models that are broken, foreign or hostile, and flags that make no sense."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.inference.model_folders import write_case, write_model_folder
from tests.support.faults import assert_refused, run, snapshot
from tests.support.hostile_checkpoints import poison

CHECKPOINT = "checkpoint_final.pth"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("trained") / "model", patch_size=(32, 32))


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.fixture
def images(tmp_path):
    write_case(tmp_path / "images", "a", np.random.default_rng(0).random((1, 32, 32)))
    return tmp_path / "images"


def predict(capsys, model, images, output, *flags):
    common = ("-device", "cpu", "-npp", 0, "-nps", 0, "--disable_progress_bar", "--disable_tta")
    return run(capsys, "predict", "-m", model, "-i", images, "-o", output, "-f", 0, *common, *flags)


def change(path, **values):
    """Other entries in a checkpoint; None takes one out."""
    content = {**torch.load(path, weights_only=False), **values}
    torch.save({key: value for key, value in content.items() if value is not None}, path)


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def name_network(path, name):
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = name
    path.write_text(json.dumps(plans))


def change_plan(path, **values):
    """Other entries of the one configuration in plans."""
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"] |= values
    path.write_text(json.dumps(plans))


def other_plans_of_training(path):
    """A fold trained with another spacing than the folder's plans.json says."""
    arguments = torch.load(path, weights_only=False)["init_args"]
    arguments["plans"]["configurations"]["2d"]["spacing"] = [2.0, 2.0]
    change(path, init_args=arguments)


def other_shapes(path):
    weights = torch.load(path, weights_only=False)["network_weights"]
    change(path, network_weights={name: value[:1] if value.ndim else value for name, value in weights.items()})


MODELS = {
    "code in the checkpoint": (lambda m: poison(m / "fold_0" / CHECKPOINT, m.parent / "created"), "os.makedirs"),
    "code in another fold": (lambda m: poison(m / "fold_1" / CHECKPOINT, m.parent / "created"), "os.makedirs"),
    "code in the plans": (lambda m: name_network(m / "plans.json", "os.system"), "os.system"),
    "an empty checkpoint": (lambda m: (m / "fold_0" / CHECKPOINT).write_bytes(b""), "is empty"),
    "no weights": (lambda m: change(m / "fold_0" / CHECKPOINT, network_weights=None), "no network_weights"),
    "no trainer": (lambda m: change(m / "fold_0" / CHECKPOINT, trainer_name=None), "no trainer_name"),
    "an unknown trainer": (
        lambda m: [change(m / f"fold_{fold}" / CHECKPOINT, trainer_name="Gone") for fold in (0, 1)],
        "requested nnunet trainer Gone",
    ),
    "an unknown configuration": (
        lambda m: [change(m / f"fold_{fold}" / CHECKPOINT, init_args={"configuration": "5d"}) for fold in (0, 1)],
        "5d",
    ),
    "folds of other trainers": (
        lambda m: change(m / "fold_1" / CHECKPOINT, trainer_name="nnUNetTrainerNoMirroring"),
        "differ in the trainer (nnUNetTrainer and nnUNetTrainerNoMirroring)",
    ),
    "folds of other shapes": (lambda m: other_shapes(m / "fold_1" / CHECKPOINT), "differ in the weights"),
    "weights of another network": (
        lambda m: [other_shapes(m / f"fold_{fold}" / CHECKPOINT) for fold in (0, 1)],
        "size mismatch",
    ),
    # weights that fit, and another segmentation without a word
    "another spacing": (
        lambda m: change_plan(m / "plans.json", spacing=[2.0, 2.0]),
        "configurations/2d/spacing is [2.0, 2.0], but fold_0/checkpoint_final.pth was trained with [1.5, 1.5]",
    ),
    "another normalisation": (
        lambda m: change_plan(m / "plans.json", normalization_schemes=["NoNormalization"]),
        'trained with ["ZScoreNormalization"]',
    ),
    "another patch size": (lambda m: change_plan(m / "plans.json", patch_size=[64, 64]), "2d/patch_size is [64, 64]"),
    "a fold of other plans": (
        lambda m: other_plans_of_training(m / "fold_1" / CHECKPOINT),
        "but fold_1/checkpoint_final.pth was trained with [2.0, 2.0]",
    ),
    "transposed axes": (
        lambda m: change_json(m / "plans.json", transpose_forward=[0, 2, 1], transpose_backward=[0, 2, 1]),
        "plans.json: transpose_forward is [0, 2, 1]",
    ),
    "exchanged labels": (
        lambda m: change_json(m / "dataset.json", labels={"background": 0, "a": 2, "b": 1, "c": 3}),
        "dataset.json: labels",
    ),
    "plans that are a list": (
        lambda m: (m / "plans.json").write_text("[1]"),
        "plans.json: the file is not nnU-Net's plans",
    ),
    "plans without configurations": (
        lambda m: (m / "plans.json").write_text("{}"),
        "plans.json: the file lacks 'dataset_name'",
    ),
    "a dataset without labels": (
        lambda m: (m / "dataset.json").write_text("{}"),
        "dataset.json: the file lacks 'labels'",
    ),
}


def test_what_decides_nothing_may_differ_from_the_plans_of_the_training(model, images, capsys):
    change_plan(model / "plans.json", batch_size=99, batch_dice=False, data_identifier="elsewhere")
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["2d_p64x64"] = {"inherits_from": "2d", "patch_size": [64, 64]}
    (model / "plans.json").write_text(json.dumps(plans))
    assert predict(capsys, model, images, model.parent / "out").code == 0


@pytest.mark.parametrize("fault", MODELS)
def test_a_broken_or_hostile_model_is_refused(fault, model, images, capsys):
    damage, words = MODELS[fault]
    damage(model)
    before = snapshot(model.parent)
    outcome = predict(capsys, model, images, model.parent / "out", "-f", 0, 1)
    assert_refused(outcome, words)
    assert snapshot(model.parent) == before  # no output folder, and nothing that code in the model created


def _file(path):
    path.write_text("x")
    return path


FLAGS = {
    "a model that is a file": (lambda m, i, o: ("-m", _file(m.parent / "file")), "is not a model folder, but a file"),
    "a path as checkpoint": (lambda m, i, o: ("-chk", f"../fold_1/{CHECKPOINT}"), "without any folder"),
    "a fold twice": (lambda m, i, o: ("-f", 0, 1, "0"), "named twice"),
    "a previous stage": (lambda m, i, o: ("-prev_stage_predictions", i), "second stage of a cascade"),
    "no step": (lambda m, i, o: ("-step_size", "nan"), "step size nan"),
    "steps over the patch": (lambda m, i, o: ("-step_size", "inf"), "step size inf"),
    "no parts": (lambda m, i, o: ("-num_parts", 0), "part 0 of 0"),
    "a part below 0": (lambda m, i, o: ("-num_parts", 2, "-part_id", -1), "part -1 of 2"),
    "fewer than no workers": (lambda m, i, o: ("-npp", -1), "can't be negative"),
    "output over the input": (lambda m, i, o: ("-o", i), "the same folder"),
    "output over the input, by another way": (lambda m, i, o: ("-o", m / ".." / i.name), "the same folder"),
    "output in a file": (lambda m, i, o: ("-o", _file(m.parent / "file") / "out"), "file is not a folder"),
}


@pytest.mark.parametrize("fault", FLAGS)
def test_flags_that_make_no_sense_are_refused(fault, model, images, capsys):
    make, words = FLAGS[fault]
    flags = make(model, images, model.parent / "out")
    before = snapshot(model.parent)
    assert_refused(predict(capsys, model, images, model.parent / "out", *flags), words)
    assert snapshot(model.parent) == before


def test_a_trusted_checkpoint_is_loaded_with_all_that_is_in_it(model, images, capsys):
    created = model.parent / "created"
    poison(model / "fold_0" / CHECKPOINT, created)
    outcome = predict(capsys, model, images, model.parent / "out", "--trust-checkpoint")
    assert outcome.code == 0, outcome
    assert created.exists()
    assert (model.parent / "out" / "a.nii.gz").is_file()


@pytest.mark.parametrize("fold", ["-1", "x", "1.5"])
def test_a_fold_that_is_no_number_is_refused(fold, model, images, capsys):
    outcome = predict(capsys, model, images, model.parent / "out", "-f", fold)
    assert outcome.code == 2
    assert "neither a fold's number" in outcome.err or "expected at least one argument" in outcome.err
