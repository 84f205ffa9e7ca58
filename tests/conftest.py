"""Where the shared reference data lie, and one small preprocessed dataset for the tests that train."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_levit.configurations import add_configuration
from nnunetv2_levit.dataset_conversion.acdc import ACDC
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.converter import Request, convert
from nnunetv2_levit.environment import VARIABLE, plugin_folder

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATASET_ID = 27


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device on this machine")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def golden():
    """The module that draws reference weights and loads reference outputs."""
    path = SHARED / "golden" / "golden.py"
    if not path.is_file():
        pytest.skip(f"the recorded reference outputs are not at {path.parent}")
    spec = importlib.util.spec_from_file_location("golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_acdc() -> Path:
    path = SHARED / "data" / "acdc"
    if not path.is_dir():
        pytest.skip(f"the real ACDC patients are not at {path}")
    return path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No test sees the nnU-Net folders or plug-ins of the person who runs it."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", VARIABLE):
        monkeypatch.delenv(name, raising=False)


def run_program(name: str, *arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run one of this Python's console scripts; standard output and error come back as one text."""
    return subprocess.run(
        [Path(sys.executable).with_name(name), *map(str, arguments)],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def nnunet_environment(root: Path) -> dict[str, str]:
    folders = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    return {
        **folders,
        VARIABLE: str(plugin_folder()),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory) -> dict[str, str]:
    """Environment of a phantom dataset, converted, planned and preprocessed, with the configuration 2d_p48x40."""
    root = tmp_path_factory.mktemp("nnunet")
    environment = nnunet_environment(root)
    source = write_phantom(root / "source", patients=5, size=56, slices=2)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        convert(ACDC, Request(source, DATASET_ID))
        planned = run_program(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-np", "1", "-npfp", "1"),
            "--verify_dataset_integrity",
            environment=environment,
        )
        assert planned.returncode == 0, planned.stdout
        add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
    return environment
