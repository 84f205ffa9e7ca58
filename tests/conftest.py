"""Where real data lie and what happens without them, and one small preprocessed dataset for the tests that train."""

import importlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from filelock import FileLock

from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.nnunet.configurations import add_configuration
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from tests.support import quick_weights
from tests.support.nnunet_programs import plan_and_preprocess

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
NO_REAL_DATA = "NNUNETV2_LEVIT_NO_REAL_DATA"
DATASET_ID = 27


_set_num_threads, _threads = torch.set_num_threads, torch.get_num_threads()


def pytest_configure():
    """Nothing computes with more threads than the tests were started with.

    nnU-Net and ``predict`` take all cores of the machine, for the process and for good. Beside another process of
    tests their threads wait for one another, at the cost of processor time.
    """
    torch.set_num_threads = lambda number: _set_num_threads(min(number, _threads))
    quick_weights.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """Each test, with the fixtures of its module, begins with the threads that the first one had."""
    _set_num_threads(_threads)
    return (yield)


def pytest_unconfigure():
    torch.set_num_threads = _set_num_threads
    quick_weights.uninstall()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "slow" not in item.keywords)  # a long test that begins last keeps one process waiting
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


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")


def library_or_skip(name: str) -> ModuleType:
    """A library of the extra ``test``; without it the test that asks is skipped or, in CI, fails."""
    return importlib.import_module(name) if in_ci() else pytest.importorskip(name)


def is_there(path: Path, what: str) -> bool:
    """Whether real data or a published text lie at ``path``. In CI their absence is a failure, so that it can't go
    unseen, unless `NO_REAL_DATA` says that they are left out on purpose (they may not be published)."""
    if path.exists():
        return True
    if in_ci() and os.environ.get(NO_REAL_DATA, "") in ("", "0"):
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
def clean_environment(monkeypatch):
    """No test sees the nnU-Net folders, plug-ins or warnings of the person who runs it, or of another test."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", VARIABLE, "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)


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
def made_once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """Function from a name and what fills a folder to such a folder.

    The first process of the tests that needs it fills it; each process gets a copy of its own.
    """
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def copy_of(name: str, make: Callable[[Path], None]) -> Path:
        shared, partial = base / name, base / f"{name}.partial"
        with FileLock(base / f"{name}.lock"):
            if not shared.exists():
                shutil.rmtree(partial, ignore_errors=True)  # of a test that failed
                make(partial)
                partial.rename(shared)
        own = tmp_path_factory.mktemp("own") / name
        shutil.copytree(shared, own)
        return own

    return copy_of


@pytest.fixture(scope="session")
def preprocessed(made_once) -> dict[str, str]:
    """Environment of a phantom dataset, converted, planned and preprocessed, with the configuration 2d_p48x40."""
    return nnunet_environment(made_once("phantom", _plan_phantom))


def _plan_phantom(root: Path) -> None:
    environment = nnunet_environment(root)
    source = write_phantom(root / "source", patients=5, size=56, slices=2)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        convert("acdc", source=source, dataset_id=DATASET_ID)
        plan_and_preprocess(DATASET_ID, environment=environment)
        add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
