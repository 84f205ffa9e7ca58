"""Peak memory of one step; on a CPU in a process of its own, whose largest memory so far can't be reset."""

import gc
import multiprocessing
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunetv2_levit.benchmark.networks import build
from nnunetv2_levit.benchmark.steps import make_step

MIB = 2**20


def _resident_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage there: its maximum is inherited from the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def _peak(
    name: str,
    mode: str,
    shape: tuple[int, int, int, int],
    num_classes: int,
    device: str,
    settings: Mapping[str, Any] | None,
    autotune: bool,
) -> float:
    gc.collect()  # what is freed during the steps would hide memory of theirs
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    network = build(name, in_channels=shape[1], num_classes=num_classes, patch_size=shape[2:], settings=settings)
    images = torch.randn(shape, device=device)
    step = make_step(network.to(device), mode, images=images, num_classes=num_classes, autotune=autotune)
    before = _resident_mib()
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        step()
    return (torch.cuda.max_memory_allocated() - held) / MIB if images.is_cuda else _resident_mib() - before


def peak_memory(
    name: str,
    mode: str,
    *,
    shape: tuple[int, int, int, int],
    num_classes: int,
    device: str,
    settings: Mapping[str, Any] | None = None,
    autotune: bool = False,
) -> float:
    """MiB of a step on images of ``shape``.

    On a GPU the most that was allocated, weights included; on a CPU by how much the process's largest resident memory
    grew beyond that of the network itself.
    """
    arguments = (name, mode, shape, num_classes, device, settings, autotune)
    if device == "cuda":
        return _peak(*arguments)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, arguments)
