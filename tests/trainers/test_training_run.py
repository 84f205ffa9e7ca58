"""A training through nnU-Net's own commands: found by the plug-in, killed, resumed, and predicted with two folds."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.run.run_training import run_training_entry

from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from tests.conftest import DATASET_ID
from tests.support.nnunet_programs import call_program, run_program

TRAINER = "LeViTUNetTrainer_128s_3iterations_2epochs"
CONFIGURATION = "2d_p48x40"


# nnUNetv2_train that says when it has begun its second epoch and goes no further: it can be killed there without haste
HALTING_TRAINING = """
import sys, time
from nnunetv2.run.run_training import run_training_entry
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
start = HybridTrainer.on_train_epoch_start
def halting(self):
    start(self)
    if self.current_epoch == 1:
        print("in the second epoch", flush=True)
        time.sleep(3600)
HybridTrainer.on_train_epoch_start = halting
if __name__ == "__main__":
    sys.argv[0] = "nnUNetv2_train"
    run_training_entry()
"""


def arguments(fold):
    return (str(DATASET_ID), CONFIGURATION, str(fold), "-tr", TRAINER, "-device", "cpu")


@pytest.fixture(scope="module")
def trained(preprocessed, made_once):
    """Folder of the trained model: fold 1 trained in one go, fold 0 killed after its first epoch and resumed.

    Also the environment that it belongs to, and what nnUNetv2_train said as it resumed.
    """
    results = made_once("trained", lambda folder: _train_and_resume({**preprocessed, "nnUNet_results": str(folder)}))
    (model,) = results.glob(f"*/{TRAINER}__nnUNetPlans__{CONFIGURATION}")
    return model, {**preprocessed, "nnUNet_results": str(results)}, (results / "resumed.txt").read_text()


def _train_and_resume(environment):
    call_program("nnUNetv2_train", *arguments(1), environment={**environment, "nnUNet_n_proc_DA": "0"})

    process = subprocess.Popen(
        [sys.executable, "-c", HALTING_TRAINING, *arguments(0)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("in the second epoch"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(said)
    process.stdout.close()
    results = Path(environment["nnUNet_results"])
    (model,) = results.glob(f"*/{TRAINER}__nnUNetPlans__{CONFIGURATION}")
    assert (model / "fold_0" / "checkpoint_best.pth").is_file()  # written at the end of the first epoch
    assert not (model / "fold_0" / "checkpoint_final.pth").exists()
    said = call_program("nnUNetv2_train", *arguments(0), "--c", environment={**environment, "nnUNet_n_proc_DA": "0"})
    (results / "resumed.txt").write_text(said)


@pytest.mark.slow
def test_a_resumed_training_has_the_epochs_and_rates_of_an_uninterrupted_one(trained):
    model, _, output = trained
    resumed, whole = (
        torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False) for fold in (0, 1)
    )
    assert "Epoch 1" in output
    assert "Epoch 0" not in output
    assert resumed["current_epoch"] == whole["current_epoch"] == 2
    assert resumed["logging"]["lrs"] == whole["logging"]["lrs"]
    assert len(resumed["logging"]["train_losses"]) == 2
    for ours, theirs in zip(
        resumed["optimizer_state"]["param_groups"], whole["optimizer_state"]["param_groups"], strict=True
    ):
        assert ours["lr"] == theirs["lr"]
    assert resumed["trainer_name"] == TRAINER
    assert not list(model.rglob("*.partial"))


@pytest.mark.slow
def test_the_final_validation_wrote_its_metrics(trained):
    model, _, _ = trained
    assert all((model / f"fold_{fold}" / "validation" / "summary.json").is_file() for fold in (0, 1))


@pytest.mark.slow
def test_two_folds_predict_together(trained, tmp_path):
    _, environment, _ = trained
    (dataset,) = Path(environment["nnUNet_raw"]).glob("Dataset*")
    images = tmp_path / "images"
    images.mkdir()
    source = sorted((dataset / "imagesTr").iterdir())[0]
    (images / source.name).symlink_to(source)
    probabilities = {}
    # together as a user would, as a process of its own; each alone within this process
    for folds in ((0,), (1,), (0, 1)):
        out = tmp_path / "_".join(map(str, folds))
        command = (
            *("nnUNetv2_predict", "-d", DATASET_ID, "-i", images, "-o", out, "-c", CONFIGURATION, "-f", *folds),
            *("-tr", TRAINER, "-device", "cpu", "-npp", 0, "-nps", 0, "--save_probabilities"),
        )
        if len(folds) > 1:
            done = run_program(*command, environment=environment)
            assert done.returncode == 0, done.stdout
            said = done.stdout
        else:
            said = call_program(*command, environment=environment)
        assert "nnunetv2_levit_plugin" in said  # found through the environment variable
        (path,) = out.glob("*.npz")
        probabilities[folds] = np.load(path)["probabilities"]
        segmentation = sitk.ReadImage(str(next(out.glob("*.nii.gz"))))
        assert segmentation.GetSize() == sitk.ReadImage(str(source)).GetSize()
    first, second, both = (torch.from_numpy(probabilities[folds]).double() for folds in ((0,), (1,), (0, 1)))
    assert not torch.allclose(first, second, atol=1e-2)
    # nnU-Net averages logits: the log-ratios between classes of the ensemble are the mean of the folds'
    ratios = [(p.clamp_min(1e-6).log() - p.clamp_min(1e-6).log()[:1]) for p in (first, second, both)]
    torch.testing.assert_close(ratios[2], (ratios[0] + ratios[1]) / 2, atol=5e-2, rtol=0)


def test_without_the_plugin_nnunet_finds_no_trainer_and_a_wrong_name_is_explained(monkeypatch, capsys):
    """By the function behind the command ``nnUNetv2_train``: it ends before there is anything to train."""
    not_found = "Could not find requested nnunet trainer"
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", *arguments(0)])
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(RuntimeError, match=f"{not_found} {TRAINER}"):
        run_training_entry()
    monkeypatch.setenv(VARIABLE, str(plugin_folder()))
    wrong = "LeViTUNetTrainer_129s"
    monkeypatch.setattr(sys, "argv", [wrong if word == TRAINER else word for word in sys.argv])
    with pytest.raises(RuntimeError, match=f"{not_found} {wrong}"):
        run_training_entry()
    assert "'129s' is neither a size nor an option" in capsys.readouterr().err


@pytest.mark.slow
def test_find_best_configuration_accepts_the_trained_model(trained):
    model, environment, _ = trained
    call_program(
        *("nnUNetv2_find_best_configuration", DATASET_ID, "-tr", TRAINER, "-c", CONFIGURATION, "-f", 0, 1),
        *("-np", 1, "--disable_ensembling"),
        environment=environment,
    )
    assert (model.parent / "inference_instructions.txt").is_file()


def _distributed_step(rank, world_size, init_file, results):
    """What nnU-Net's children do: find the trainer by name, wrap its network, train two steps."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=world_size)
    trainer = recursive_find_trainer_class_by_name("LeViTUNetTrainer_128s_ds")
    torch.manual_seed(0)
    network = trainer.build_network_architecture(None, SimpleNamespace(patch_size=(64, 80)), 1, 3, True)
    network = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    torch.manual_seed(rank + 1)
    for _ in range(2):  # the second forward fails where a parameter had no gradient in the first
        optimizer.zero_grad()
        sum(output.square().mean() for output in network(torch.randn(2, 1, 64, 80))).backward()
        optimizer.step()
    torch.save(network.module.decoder.state_dict(), f"{results}_{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_spawned_processes_train_together(tmp_path, monkeypatch):
    """As nnU-Net's, the processes share nothing but files; one process imports nnU-Net for both."""
    monkeypatch.setenv(VARIABLE, str(plugin_folder()))
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["nnunetv2.run.run_training"])
    torch.multiprocessing.start_processes(
        _distributed_step,
        args=(2, tmp_path / "rendezvous", tmp_path / "weights"),
        nprocs=2,
        start_method="forkserver",
    )
    first, second = (torch.load(f"{tmp_path / 'weights'}_{rank}.pth", weights_only=True) for rank in (0, 1))
    for name, value in first.items():
        if "running" not in name:  # statistics of the batch; nnU-Net synchronises batch norm on GPUs
            torch.testing.assert_close(value, second[name])
