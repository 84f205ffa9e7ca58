"""Cost of registered networks for given patch sizes, each measured in a process of its own."""

import multiprocessing
import platform
import resource
import sys
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import REGISTRY, create

MIB = 2**20


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-adds of one forward pass: convolutions, matrix products and attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return counter.get_total_flops() // 2


def _resident_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def measure(
    name: str,
    *,
    patch_size: tuple[int, int],
    batch_size: int,
    device: str,
    repetitions: int,
    in_channels: int,
    num_classes: int,
) -> dict[str, Any]:
    """Parameters, multiply-adds of one image, seconds per image (median) and peak memory of a forward pass.

    Memory is what the allocator held at most on a GPU, and on a CPU by how much the process's largest resident memory
    grew beyond that of the network itself.
    """
    torch.manual_seed(0)
    network = create(name, in_channels=in_channels, num_classes=num_classes, image_size=patch_size).eval().to(device)
    images = torch.randn(batch_size, in_channels, *patch_size, device=device)
    cuda = torch.device(device).type == "cuda"
    before = _resident_mib()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    with torch.no_grad(), torch.autocast("cuda", enabled=cuda):
        for _ in range(repetitions + 2):
            start = perf_counter()
            network(images)
            if cuda:
                torch.cuda.synchronize()
            times.append(perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / MIB if cuda else _resident_mib() - before
    macs = multiply_adds(network, images[:1])  # last: it would raise the process's largest memory
    return {
        "network": name,
        "patch_size": list(patch_size),
        "batch_size": batch_size,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmac_per_image": round(macs / 1e9, 3),
        "seconds_per_image": median(times[2:]) / batch_size,
        "peak_memory_mib": round(memory, 1),
    }


def _measure(arguments: dict[str, Any]) -> dict[str, Any]:
    return measure(**arguments)


def run(
    *,
    networks: Sequence[str],
    patch_sizes: Sequence[tuple[int, int]],
    batch_size: int = 1,
    device: str = "cpu",
    repetitions: int = 5,
    in_channels: int = 1,
    num_classes: int = 4,
) -> dict[str, Any]:
    """Measure every network at every patch size; returns the machine and one row each.

    Raises:
        UserError: an unknown network, an impossible patch or batch size, or no such device.
    """
    for name in networks:
        if name not in REGISTRY:
            raise UserError(f"network {name!r} is not registered: choose from {', '.join(REGISTRY)}")
    if batch_size < 1 or repetitions < 1:
        raise UserError(f"batch size and repetitions must be at least 1, got {batch_size} and {repetitions}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    rows = []
    jobs = [(name, patch) for name in networks for patch in patch_sizes]
    # a process each: the largest memory so far can't be reset, and one network's threads don't outlive it
    context = multiprocessing.get_context("spawn")
    for name, patch in tqdm(jobs, desc="measuring"):
        with context.Pool(1) as pool:
            arguments = dict(
                name=name,
                patch_size=patch,
                batch_size=batch_size,
                device=device,
                repetitions=repetitions,
                in_channels=in_channels,
                num_classes=num_classes,
            )
            rows.append(pool.apply(_measure, (arguments,)))
    processor = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": processor,
        "precision": "fp16 autocast" if device == "cuda" else "fp32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }


def as_markdown(result: dict[str, Any]) -> str:
    """A table of the rows, with the machine above it."""
    lines = [
        f"{result['device']}, {result['precision']}, torch {result['torch']}",
        "",
        "| network | patch | batch | parameters (M) | GMAC per image | s per image | peak memory (MiB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        height, width = row["patch_size"]
        lines.append(
            f"| {row['network']} | {height}×{width} | {row['batch_size']} | {row['parameters'] / 1e6:.2f} "
            f"| {row['gmac_per_image']:.2f} | {row['seconds_per_image']:.4f} | {row['peak_memory_mib']:.0f} |"
        )
    return "\n".join(lines)
