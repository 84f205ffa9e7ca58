"""Memory of a training step counted on shapes, beside what a process measures on the CPU (or torch on a GPU).

    python docs/lab/experiments/counted_memory.py [--device cpu] -o docs/lab/results/counted_memory_cpu.json

Each measurement is a process of its own: two steps of Dice and cross-entropy with SGD. On a CPU, in fp32, it is the
growth of the process's resident memory, read every millisecond, with small blocks given back to the system at once
(glibc's MALLOC_MMAP_THRESHOLD_). On a GPU, in autocast to fp16, it is the most that torch had allocated, weights
included.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from tqdm import tqdm

from nnunetv2_levit.any_network.memory import _loss, training_step_memory
from nnunetv2_levit.benchmark.networks import build
from nnunetv2_levit.files import write_json

MIB = 2**20
# network, batch, side
CASES = [
    ("nnunet_plain", 4, 128), ("nnunet_plain", 8, 128), ("nnunet_resenc_m", 4, 128), ("levit_unet_128s", 8, 128),
    ("unet2022_tiny", 4, 128), ("smp:Unet/resnet18", 8, 128), ("smp:FPN/tu-pvt_v2_b0", 8, 128),
    ("smp:DeepLabV3Plus/tu-convnext_atto", 8, 128), ("monai:SwinUNETR", 2, 128), ("monai:SegResNet", 4, 128),
]  # fmt: skip


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(name: str, batch: int, side: int, device: str) -> float:
    """MiB of two steps."""
    network = build(name, in_channels=1, num_classes=4, patch_size=(side, side)).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    most, done, before = 0, threading.Event(), resident()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        images = torch.randn(batch, 1, side, side, device=device)
        target = torch.zeros(batch, 1, side, side, dtype=torch.long, device=device)
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.float16, enabled=device == "cuda"):
            loss = _loss(network(images), target)
        loss.backward()
        optimizer.step()
    done.set()
    watcher.join()
    return (torch.cuda.max_memory_allocated() if device == "cuda" else most - before) / MIB


def counted(name: str, batch: int, side: int, device: str) -> float:
    """MiB of the same, on shapes; on a CPU the weights lie in memory before."""
    network = build(name, in_channels=1, num_classes=4, patch_size=(side, side))
    memory = training_step_memory(
        network, batch_size=batch, channels=1, image_size=(side, side), precision="fp16" if device == "cuda" else "fp32"
    )
    return (memory.total if device == "cuda" else memory.step + memory.optimizer) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.one:
        name, batch, side = options.one
        print(measured(name, int(batch), int(side), options.device))
        return
    rows = []
    for name, batch, side in tqdm(CASES):
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        words = [sys.executable, __file__, "--device", options.device, "--one", name, str(batch), str(side)]
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
        row = {"network": name, "batch_size": batch, "side": side, "measured_mib": float(said.split()[-1])}
        row["counted_mib"] = counted(name, batch, side, options.device)
        row["counted / measured"] = row["counted_mib"] / row["measured_mib"]
        rows.append(row)
        tqdm.write(json.dumps(row))
        if options.output is not None:
            write_json(options.output, {"device": options.device, "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
