"""nnU-Net's programs: as a process of their own, as a user runs them, or as a call within the tests' process.

A process imports torch and nnU-Net anew, and so does each worker that it spawns: seconds of processor time each.
Training and prediction are run as processes by one test at least; other tests call the function behind them.
"""

import io
import multiprocessing
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

from nnunetv2_levit.nnunet import replacements


def run_program(name: str, *arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run one of this Python's console scripts; standard output and error come back as one text."""
    return subprocess.run(
        [Path(sys.executable).with_name(name), *map(str, arguments)],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def call_program(name: str, *arguments: object, environment: dict[str, str]) -> str:
    """Call the function behind a console script, with threads for the processes of its pools; return what it printed.

    What it raises is raised. Give trainings ``nnUNet_n_proc_DA=0`` and predictions ``-npp 0 -nps 0``: no processes.
    """
    (script,) = entry_points(group="console_scripts", name=name)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        _use_threads_for_pools(patch)
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        for variable, value in environment.items():
            patch.setenv(variable, value)
        try:
            script.load()()
        finally:
            replacements.uninstall()
    return said.getvalue()


def plan_and_preprocess(dataset_id: int, *flags: str, environment: dict[str, str]) -> str:
    """``nnUNetv2_plan_and_preprocess`` in 2D, with the check of the dataset; returns what it printed.

    Statistics of intensities are of 10,000 pixels a case: nnU-Net draws 100 million, however small the images are.
    """
    analyze = DatasetFingerprintExtractor.analyze_case

    def with_fewer_samples(images, label, reader, samples):
        return analyze(images, label, reader, min(samples, 10_000))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetFingerprintExtractor, "analyze_case", staticmethod(with_fewer_samples))
        return call_program(
            *("nnUNetv2_plan_and_preprocess", "-d", dataset_id, "-c", "2d", "-np", 1, "-npfp", 1),
            *("--verify_dataset_integrity", *flags),
            environment=environment,
        )


def _use_threads_for_pools(patch: pytest.MonkeyPatch) -> None:
    """Make ``multiprocessing.get_context("spawn").Pool`` a pool of threads; nothing else of that context is there."""
    get_context = multiprocessing.get_context

    def context_of_threads(method: str | None = None) -> object:
        return SimpleNamespace(Pool=ThreadPool) if method == "spawn" else get_context(method)

    patch.setattr(multiprocessing, "get_context", context_of_threads)
