"""Checkpoints that try to run code when they are read, and what genuine ones of several versions hold."""

import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


class CreatesFile:
    """Pickled, it becomes a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.makedirs, (str(self.path), 0o777, True)


def genuine() -> dict:
    """What a checkpoint of nnU-Net's holds, numbers of NumPy among them; a NaN is no fault of the file's."""
    return {
        "network_weights": OrderedDict(a=torch.tensor([1.0, float("nan")])),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "grad_scaler_state": None,
        "logging": {"lrs": [1e-3], "train_losses": [np.float32(0.5)], "mean_fg_dice": [np.float64(0.25)]},
        "_best_ema": np.float64(0.25),
        "current_epoch": 1,
        "init_args": {"plans": {"x": [1]}, "configuration": "2d", "fold": 0, "device": torch.device("cuda", 0)},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


def as_numpy_1_wrote(path: Path) -> None:
    """Rename NumPy's function for scalars in a checkpoint to what NumPy 1 called it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def poison(path: Path, created: Path) -> None:
    """Let a checkpoint create ``created`` (a folder) when it is unpickled, and hold the same as before otherwise."""
    content = torch.load(path, map_location="cpu", weights_only=False)
    torch.save({**content, "extra": CreatesFile(created)}, path)
