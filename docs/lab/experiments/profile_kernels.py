"""The kernels that take most of a step's time, by torch's profiler.

python docs/lab/experiments/profile_kernels.py -o result.json [--device cuda] [--networks …] [--modes folded training]
    [--batch 64] [--patch 224 224] [--top 10]

A step is the benchmark's (`nnunetv2_levit benchmark --help`), after two that are not counted. On CUDA a kernel's time
is the GPU's, on a CPU that of the operator itself. ``share`` is of all kernels. ``busy`` is the time of all kernels
over the step's time by the clock: what is missing is waiting, on a GPU for the next launch.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from time import perf_counter

import torch
from commands import command_line
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from nnunetv2_levit.benchmark.networks import build
from nnunetv2_levit.benchmark.steps import Step, make_step

CLASSES = 9
STEPS = 3


def kernels_of(step: Step, device: str) -> tuple[dict[str, float], Counter[str], float]:
    """Seconds and calls a step of each kernel by its name, and seconds of a step by the clock."""
    for _ in range(2):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        start = perf_counter()
        for _ in range(STEPS):
            step()
        clock = (perf_counter() - start) / STEPS
    seconds: dict[str, float] = {}
    calls: Counter[str] = Counter()
    for event in profiler.key_averages():
        if getattr(event, "is_user_annotation", False):  # the time of kernels that are listed themselves
            continue
        if device == "cuda" and event.device_type != DeviceType.CUDA:
            continue
        micros = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if micros:
            seconds[event.key] = micros / 1e6 / STEPS
            calls[event.key] = event.count // STEPS
    return seconds, calls, clock


def row_of(name: str, mode: str, arguments: argparse.Namespace) -> dict:
    """The most expensive kernels of one network in one mode."""
    patch = tuple(arguments.patch)
    network = build(name, in_channels=1, num_classes=CLASSES, patch_size=patch).to(arguments.device)
    images = torch.randn(arguments.batch, 1, *patch, device=arguments.device)
    step = make_step(network, mode, images=images, num_classes=CLASSES, autotune=True)
    seconds, calls, clock = kernels_of(step, arguments.device)
    total = sum(seconds.values())
    most = sorted(seconds, key=lambda key: -seconds[key])[: arguments.top]
    return {
        "network": name,
        "mode": mode,
        "step_seconds": clock,
        "busy": round(total / clock, 3),
        "calls": sum(calls.values()),
        "kernels": [{"name": key, "share": round(seconds[key] / total, 4), "calls": calls[key]} for key in most],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--networks", nargs="+", default=["levit_unet_384", "unet2022_tiny"])
    parser.add_argument("--modes", nargs="+", default=["folded", "training"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--patch", type=int, nargs=2, default=(224, 224))
    parser.add_argument("--top", type=int, default=10)
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    result = {"command": command_line(), "device": device, "torch": torch.__version__, "batch": arguments.batch}
    result |= {"patch_size": list(arguments.patch), "rows": []}
    for name in arguments.networks:
        for mode in arguments.modes:
            row = row_of(name, mode, arguments)
            result["rows"].append(row)
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")  # should the rest be stopped
            print(f"{name}, {mode}: {row['calls']} calls a step, busy {row['busy']:.0%}", flush=True)
            for kernel in row["kernels"]:
                print(f"  {kernel['share']:6.1%} {kernel['calls']:5d} x {kernel['name'][:120]}", flush=True)


if __name__ == "__main__":
    main()
