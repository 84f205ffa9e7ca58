"""Where real data lie and what happens without them, and one small preprocessed dataset for the tests that train."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.nnunet.configurations import add_configuration
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
NO_REAL_DATA = "NNUNETV2_LEVIT_NO_REAL_DATA"
DATASET_ID = 27


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device on this machine")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """End with a line that counts what was skipped, by reason: the outermost wrapper comes after pytest's own lines."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(skipped_line(reporter.stats.get("skipped", [])))
    return result


def skipped_line(reports: list[pytest.TestReport]) -> str:
    """``skipped: 12 (no CUDA device on this machine), 9 (…)``: how many tests, for each reason."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    return "skipped: " + (", ".join(f"{count} ({reason})" for reason, count in reasons.most_common()) or "none")


def is_there(path: Path, what: str) -> bool:
    """Whether real data or a published text lie at ``path``. In CI their absence is a failure, so that it can't go
    unseen, unless `NO_REAL_DATA` says that they are left out on purpose (they may not be published)."""
    if path.exists():
        return True
    if os.environ.get("CI", "").lower() in ("true", "1") and os.environ.get(NO_REAL_DATA, "") in ("", "0"):
        pytest.fail(f"{_missing(path, what)}: put them there, or set {NO_REAL_DATA}=1 where there are none on purpose")
    return False


def reference_or_skip(path: Path, what: str) -> Path:
    """``path`` where it exists; otherwise the test that asks is skipped or, in CI, fails (see `is_there`)."""
    if not is_there(path, what):
        pytest.skip(_missing(path, what))
    return path


def _missing(path: Path, what: str) -> str:
    return f"{what} are not at {os.path.relpath(path, REPOSITORY)}"


@pytest.fixture(scope="session")
def real_acdc() -> Path:
    return reference_or_skip(SHARED / "data" / "acdc", "the real ACDC patients")


@pytest.fixture(autouse=True)
def threads_of_the_caller(monkeypatch):
    """No test computes with more threads than it was started with, nor leaves others to the next one.

    nnU-Net and ``predict`` take all cores of the machine, for the process and for good. Beside another process of
    tests their threads wait for one another, at the cost of processor time.
    """
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda number: set_threads(min(number, threads)))
    yield
    set_threads(threads)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No test sees the nnU-Net folders, plug-ins or warnings of the person who runs it, or of another test."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", VARIABLE, "PYTHONWARNINGS"):
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
        "OMP_WAIT_POLICY": "PASSIVE",  # nnU-Net takes all cores all the same: its threads are to sleep while they wait
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
        convert("acdc", source=source, dataset_id=DATASET_ID)
        planned = run_program(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-np", "1", "-npfp", "1"),
            "--verify_dataset_integrity",
            environment=environment,
        )
        assert planned.returncode == 0, planned.stdout
        add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
    return environment
