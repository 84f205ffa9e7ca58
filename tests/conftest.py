"""Where the shared reference data lie, and one small preprocessed dataset for the tests that train."""

import contextlib
import importlib.util
import io
import multiprocessing
import os
import subprocess
import sys
import traceback
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

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
    for item in items:
        if "preprocessed" in item.fixturenames:  # one process of several builds it, and what is trained from it
            item.add_marker(pytest.mark.xdist_group("preprocessed"))
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


def run_here(name: str, *arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """What `run_program` does, in this process, with threads as nnU-Net's worker processes.

    Each process that nnU-Net starts imports torch and nnU-Net for about 5 s; a test needs that only where the processes
    are what it is about.
    """
    (command,) = entry_points(group="console_scripts", name=name)
    main = command.load()
    output, code, threads = io.StringIO(), 0, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        patch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
        for module in ("utils", "file_path_utilities"):
            patch.setattr(f"nnunetv2.utilities.{module}.Pool", lambda processes: ThreadPool(1))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
            except (Exception, SystemExit):
                traceback.print_exc()
                code = 1
            finally:
                torch.set_num_threads(threads)  # nnU-Net takes all cores
    return subprocess.CompletedProcess([name, *arguments], code, stdout=output.getvalue())


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
        planned = run_here(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-np", "1", "-npfp", "1"),
            "--verify_dataset_integrity",
            environment=environment,
        )
        assert planned.returncode == 0, planned.stdout
        add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
    return environment
