"""Time, memory and multiply-adds of a network beside those of nnU-Net's own for the same patch."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from nnunetv2_levit.any_network.memory import GIB, gpu_memory, training_step_memory
from nnunetv2_levit.benchmark.measure import multiply_adds
from nnunetv2_levit.benchmark.networks import nnunet_network
from nnunetv2_levit.benchmark.steps import make_step
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_check.subject import CLASSES, Subject

REFERENCE = "nnunet_plain"
BATCH = 2
REPETITIONS = 3
MODES = ("inference", "training")


def cost_beside_nnunet(subject: Subject, patch_size: Grid) -> dict[str, Any]:
    """Parameters, multiply-adds, seconds an image on this CPU, and memory of a training step, counted for a GPU.

    What the network fails at is None. ``patch_size`` is one that nnU-Net would plan.

    Raises:
        Exception: the network can't be built for that patch.
    """

    def new(name: str) -> nn.Module:
        if name == REFERENCE:
            torch.manual_seed(0)
            return nnunet_network(name, in_channels=1, num_classes=CLASSES, patch_size=patch_size)
        return subject.build(image_size=patch_size)

    names = (subject.network.name, REFERENCE)
    pictures = torch.randn(BATCH, 1, *patch_size)
    seconds: dict[str, dict[str, float | None]] = {name: dict.fromkeys(MODES) for name in names}
    for mode in MODES:
        steps = {}
        for name in names:
            step = make_step(new(name), mode, images=pictures, num_classes=CLASSES)
            with suppress(Exception):  # the rules say why
                step()
                steps[name] = step
        for name, value in interleaved(steps, repetitions=REPETITIONS).items():
            seconds[name][mode] = value / BATCH
    rows = []
    for name in names:
        network = new(name)
        gib: float | None = None
        gmac: float | None = None
        with suppress(Exception):  # the rules say why
            counted = training_step_memory(network, batch_size=BATCH, channels=1, image_size=patch_size)
            gib = round(gpu_memory(counted) / GIB, 3)
        with suppress(Exception):
            gmac = round(multiply_adds(network.eval(), pictures[:1]) / 1e9, 3)
        rows.append(
            {
                "network": name,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "gmac_per_image": gmac,
                "seconds_per_image": seconds[name],
                "training_gib": gib,
            }
        )
    return {"patch_size": list(patch_size), "batch_size": BATCH, "rows": rows}
