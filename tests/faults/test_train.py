"""``train``: what is refused before nnU-Net starts, and checkpoints that run code."""

import json
import os
import pickle
import sys

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.checkpoints import TRUST_VARIABLE
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from nnunetv2_levit.nnunet.pretrained_weights import load_pretrained_weights
from nnunetv2_levit.trainers import trainer_class
from tests.inference.model_folders import write_model_folder
from tests.support.faults import assert_refused, run, snapshot
from tests.support.hostile_checkpoints import CreatesFile, genuine, poison

TRAINER, DATASET = "LeViTUNetTrainer_128s_3iterations_6epochs", "Dataset027_ACDC"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """nnU-Net's folders with what a preprocessed dataset consists of, but for the images in its case files."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv(VARIABLE, str(plugin_folder()))
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    dataset = tmp_path / "preprocessed" / DATASET
    write_model_folder(dataset, folds=())
    (dataset / "plans.json").rename(dataset / "nnUNetPlans.json")
    (dataset / "test").mkdir()
    for case in "abcdef":
        (dataset / "test" / f"{case}.b2nd").touch()
        (dataset / "test" / f"{case}.pkl").write_bytes(pickle.dumps({}))
    return tmp_path


@pytest.fixture
def handed_on(monkeypatch):
    """The arguments that nnUNetv2_train would have started with, one list for each start."""
    started = []

    class Entry:
        def load(self):
            return lambda: started.append(sys.argv[1:])

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Entry()])
    monkeypatch.setattr(sys, "argv", ["nnunetv2_levit"])
    return started


def train(capsys, *words, dataset="27", configuration="2d", fold="0", trainer=TRAINER, device="cpu"):
    return run(capsys, "train", dataset, configuration, fold, "-tr", trainer, "-device", device, *words)


def fold_folder(root, trainer=TRAINER):
    folder = root / "results" / DATASET / f"{trainer}__nnUNetPlans__2d" / "fold_0"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(path, **values):
    torch.save({**genuine(), **values}, path)


def hostile(root, name, trainer=TRAINER):
    path = fold_folder(root, trainer) / f"checkpoint_{name}.pth"
    save(path, extra=CreatesFile(root / "created"))
    return path


ARGUMENTS = {
    "a size that is not there": ({"trainer": "LeViTUNetTrainer_129s"}, (), "'129s' is neither a size nor an option"),
    "a misspelt family": ({"trainer": "LevitUNetTrainer"}, (), "did you mean LeViTUNetTrainer"),
    "an unknown trainer": ({"trainer": "Nobody"}, (), "there is no trainer Nobody"),
    "a second name": ({"trainer": "LeViTUNetTrainer_384"}, (), "is the training LeViTUNetTrainer by a second name"),
    "an unknown dataset": ({"dataset": "28"}, (), "no dataset with id 28"),
    "a dataset that is no name": ({"dataset": "x"}, (), "no dataset x"),
    "an unknown configuration": ({"configuration": "3d_lowres"}, (), "no configuration '3d_lowres'"),
    "unknown plans": ({}, ("-p", "OtherPlans"), "present are nnUNetPlans"),
    "a fold below 0": ({"fold": "-1"}, (), "the fold '-1'"),
    "a fold that is a word": ({"fold": "x"}, (), "the fold 'x'"),
    "a fold beyond the splits": ({"fold": "5"}, (), "has the folds 0 to 4"),
    "a device that is none": ({"device": "gpu"}, (), "no device 'gpu'"),
    "no process": ({}, ("-num_gpus", "0"), "-num_gpus 0"),
    "going on and validating": ({}, ("--c", "--val"), "--c and --val exclude each other"),
    "going on from other weights": ({}, ("--c", "-pretrained_weights", "x.pth"), "exclude each other"),
    "nothing to validate": ({}, ("--val",), "nothing to validate"),
    "no pretrained weights": ({}, ("-pretrained_weights", "absent.pth"), "no checkpoint absent.pth"),
}


@pytest.mark.parametrize("fault", ARGUMENTS)
def test_what_can_not_be_trained_is_one_sentence(fault, root, handed_on, capsys):
    places, flags, words = ARGUMENTS[fault]
    before = snapshot(root)
    assert_refused(train(capsys, *flags, **places), words)
    assert handed_on == []
    assert snapshot(root) == before


def _file(name):
    return lambda root: root / "preprocessed" / DATASET / name


DATA = {
    "no preprocessed folder": (lambda root: (root / "preprocessed").rename(root / "moved"), "no dataset"),
    "no preprocessed cases": (lambda root: _file("test")(root).rename(root / "moved"), "no preprocessed cases"),
    "plans cut short": (lambda root: _file("nnUNetPlans.json")(root).write_text('{"plans'), "is not a plans file"),
    "plans that are a list": (lambda root: _file("nnUNetPlans.json")(root).write_text("[]"), "not a plans file"),
    "no description": (lambda root: _file("dataset.json")(root).unlink(), "dataset.json does not exist"),
    "splits cut short": (
        lambda root: _file("splits_final.json")(root).write_text('[{"train'),
        "splits_final.json is not",
    ),
    "no splits": (lambda root: _file("splits_final.json")(root).write_text("{}"), "no list of folds"),
    "too few cases": (lambda root: [_file(f"test/{case}.b2nd")(root).unlink() for case in "abcd"], "too few"),
}


@pytest.mark.parametrize("fault", DATA)
def test_missing_or_broken_data_is_one_sentence(fault, root, handed_on, capsys):
    damage, words = DATA[fault]
    damage(root)
    assert_refused(train(capsys), words)
    assert handed_on == []
    assert not list((root / "results").iterdir())


def test_without_the_environment_variables_it_says_which(root, handed_on, capsys, monkeypatch):
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        with monkeypatch.context() as patch:
            patch.delenv(name)
            assert_refused(train(capsys), name)


CHECKPOINTS = {
    "going on": ("final", ("--c",)),
    "going on from the latest": ("latest", ("--c",)),
    "going on from the best": ("best", ("--c",)),
    "validating": ("final", ("--val",)),
    "pretrained weights": ("final", ("-pretrained_weights", "{path}")),
}


@pytest.mark.parametrize("trainer", [TRAINER, "nnUNetTrainer"])
@pytest.mark.parametrize("use", CHECKPOINTS)
def test_code_in_a_checkpoint_does_not_run_unless_it_is_trusted(use, trainer, root, handed_on, capsys, monkeypatch):
    name, flags = CHECKPOINTS[use]
    path = hostile(root, name, trainer)
    flags = tuple(flag.format(path=path) for flag in flags)
    assert_refused(train(capsys, *flags, trainer=trainer), "os.makedirs", str(path), "--trust-checkpoint")
    assert handed_on == []
    monkeypatch.setenv(TRUST_VARIABLE, "0")  # so that what the flag sets is undone
    assert train(capsys, *flags, "--trust-checkpoint", trainer=trainer).code == 0
    assert handed_on == [["27", "2d", "0", "-tr", trainer, "-device", "cpu", *flags]]
    assert not (root / "created").exists()


def test_a_truncated_model_can_not_be_gone_on_with(root, handed_on, capsys):
    path = fold_folder(root) / "checkpoint_final.pth"
    torch.save({key: value for key, value in genuine().items() if key != "optimizer_state"}, path)
    assert_refused(train(capsys, "--c"), "no optimizer_state")


@pytest.fixture
def trainer(root):
    """A trainer as nnU-Net makes it, of a tiny U-Net's plans."""
    dataset = root / "preprocessed" / DATASET
    plans = json.loads((dataset / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    description = json.loads((dataset / "dataset.json").read_text())
    return trainer_class(TRAINER)(plans, "2d", 0, description, torch.device("cpu"))


def _refuses(call, *words):
    with pytest.raises(UserError) as refused:
        call()
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_trainer_itself_runs_no_code(trainer, root, monkeypatch):
    """Under plain nnUNetv2_train nothing was checked before."""
    trainer.initialize()
    path = fold_folder(root) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    poison(path, root / "created")
    _refuses(lambda: trainer.load_checkpoint(str(path)), "os.makedirs", TRUST_VARIABLE)
    _refuses(lambda: load_pretrained_weights(trainer.network, str(path)), "os.makedirs", TRUST_VARIABLE)
    _refuses(lambda: load_pretrained_weights(torch.nn.Linear(1, 1), str(path)), "os.makedirs")
    assert not (root / "created").exists()
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    trainer.load_checkpoint(str(path))
    assert (root / "created").exists()
    assert trainer.current_epoch == 1


def test_a_checkpoint_of_another_network_is_one_sentence(trainer, root):
    path = fold_folder(root) / "checkpoint_latest.pth"
    save(path)
    _refuses(lambda: trainer.load_checkpoint(str(path)), str(path), "does not fit")


@pytest.mark.parametrize(
    ("best_epoch", "best_is_younger", "trusted", "expected"),
    [(3, True, False, 3), (3, False, False, 2), (1, True, False, 2), (3, True, True, 3), (3, False, True, 2)],
)
def test_a_training_goes_on_from_the_newest_checkpoint(
    trainer, root, monkeypatch, best_epoch, best_is_younger, trusted, expected
):
    if trusted:
        monkeypatch.setenv(TRUST_VARIABLE, "1")
    trainer.initialize()
    folder = fold_folder(root)
    for name, epoch, age in (("latest", 2, 10), ("best", best_epoch, 5 if best_is_younger else 20)):
        trainer.current_epoch = epoch - 1
        trainer.save_checkpoint(str(folder / f"checkpoint_{name}.pth"))
        os.utime(folder / f"checkpoint_{name}.pth", (1e9 - age, 1e9 - age))
    trainer.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    assert trainer.current_epoch == expected


def test_weights_that_do_not_fit_are_one_sentence(trainer, root):
    """nnU-Net's own loader asserts, and prints a whole tensor; it also stops at a checkpoint from a GPU on a CPU."""
    trainer.initialize()
    path = fold_folder(root) / "checkpoint_final.pth"
    trainer.save_checkpoint(str(path))
    words = (str(path), "does not fit this network at weight")
    _refuses(lambda: load_pretrained_weights(torch.nn.Conv2d(1, 1, 1), str(path)), *words)
    content = torch.load(path, weights_only=False)
    content["init_args"]["plans"]["configurations"]["2d"]["patch_size"] = [8, 64, 64]
    torch.save(content, path)
    _refuses(lambda: load_pretrained_weights(trainer.network, str(path)), str(path), "2D network", "3 dimensions")


def test_the_splits_are_written_whole_and_are_nnunets(trainer, root):
    trainer.initialize()
    splits = root / "preprocessed" / DATASET / "splits_final.json"
    ours = trainer.do_split()
    written = json.loads(splits.read_text())
    splits.unlink()
    assert nnUNetTrainer.do_split(trainer) == ours
    assert json.loads(splits.read_text()) == written
    trainer.fold = len(written)  # nnU-Net would draw cases at random, whoever's they are
    _refuses(trainer.do_split, str(splits), f"there is no fold {trainer.fold}")


def test_left_over_partial_files_go_when_a_training_starts(trainer, root, monkeypatch):
    left_over = fold_folder(root) / "checkpoint_best.pth.partial"
    left_over.touch()
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    trainer.on_train_start()
    assert not left_over.exists()


@pytest.mark.parametrize("resumed", [False, True])
def test_checkpoints_of_an_earlier_training_are_set_aside(trainer, root, monkeypatch, resumed):
    """nnU-Net's ``--c`` would go on from the earlier training, after an interruption of the new one."""
    trainer.initialize()
    folder = fold_folder(root)
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    if resumed:
        trainer.load_checkpoint(str(folder / "checkpoint_final.pth"))
    trainer.on_train_start()
    assert (folder / "checkpoint_final.pth").exists() == resumed
    assert (folder / "earlier_checkpoint_final.pth").exists() != resumed


@pytest.mark.parametrize("name", ["LeViTUNetTrainer_384", "TransUNetTrainer_12blocks", "LeViTUNetTrainer_1000epochs"])
def test_a_second_name_is_not_trained_by_nnunet_either(name, trainer):
    arguments = (trainer.plans_manager.plans | {"continue_training": False}, "2d", 0, trainer.dataset_json)
    _refuses(lambda: trainer_class(name)(*arguments, torch.device("cpu")), name, "by a second name")
