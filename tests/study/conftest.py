"""A dataset that nnU-Net could train on, as files alone, and studies of it whose jobs compute nothing."""

import json
import os
from pathlib import Path

import pytest

from nnunetv2_levit.study import check, load_study
from nnunetv2_levit.study.check import ModelFacts
from tests.evaluation.conftest import LABELS, heart, write_labels

CASES = [f"patient{number:03d}_frame{frame:02d}" for number in range(1, 9) for frame in (1, 12)]
DATASET = "Dataset027_ACDC"
ARCHITECTURE = {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []}
CONFIGURATION = {"data_identifier": "nnUNetPlans_2d", "batch_size": 2, "architecture": ARCHITECTURE}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "label_manager": "LabelManager",
    "image_reader_writer": "SimpleITKIO",
    "configurations": {
        "2d": {**CONFIGURATION, "patch_size": [64, 64]},
        "3d_fullres": {**CONFIGURATION, "patch_size": [8, 64, 64]},
    },
}
DESCRIPTION = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "name": "ACDC"}
STUDY = """
[study]
name = "small"
folder = "out"
dataset = 27
trainers = ["LeViTUNetTrainer_128s", "UNet2022Trainer"]
folds = [0, 1]
seeds = [0, 1]
[test]
images = "imagesTs"
labels = "labelsTs"
[local]
devices = ["cpu", "cpu"]
"""


@pytest.fixture
def nnunet(tmp_path, monkeypatch) -> Path:
    """nnU-Net's folders with a preprocessed dataset of eight patients, and two more as test images."""
    folder = tmp_path / "preprocessed" / DATASET
    for case in CASES:
        write_labels(folder / "gt_segmentations" / f"{case}.nii.gz", heart())
    (folder / "nnUNetPlans_2d").mkdir()
    (folder / "nnUNetPlans_2d" / "case.b2nd").touch()
    splits = [
        {"train": [c for c in CASES if int(c[7:10]) % 2 == rest], "val": [c for c in CASES if int(c[7:10]) % 2 != rest]}
        for rest in (0, 1)
    ]
    for name, content in {"nnUNetPlans": PLANS, "dataset": DESCRIPTION, "splits_final": splits}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for number in (7, 8, 9):
        write_labels(tmp_path / "labelsTs" / f"patient{number:03d}_frame01.nii.gz", heart())
        (tmp_path / "imagesTs").mkdir(exist_ok=True)
        (tmp_path / "imagesTs" / f"patient{number:03d}_frame01_0000.nii.gz").touch()
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def study_file(nnunet) -> Path:
    file = nnunet / "study.toml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def faked(monkeypatch):
    """Jobs are those of `fake_worker`, and networks are not built."""
    here = Path(__file__).resolve().parent
    monkeypatch.setattr(check, "_facts", lambda study, model: ModelFacts(parameters=1000, epochs=2))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here / "fake_site"), str(here.parents[1])]))


@pytest.fixture
def study(study_file, faked):
    return load_study(study_file)
