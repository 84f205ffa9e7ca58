"""Processor time of a training step in fp32 and bf16 (`_bf16`) on a CPU, one thread, in turn.

    python docs/lab/experiments/bf16_cpu.py -o docs/lab/results/pocket/bf16_cpu.json

Processor time, not the clock: on one thread other work on the machine changes it little.
"""

import argparse
from pathlib import Path
from statistics import median
from time import process_time

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_levit.files import write_json
from nnunetv2_levit.network_architectures import create

CHANNELS, CLASSES, SIZE, BATCH = 1, 4, (112, 112), 8


def networks() -> dict[str, nn.Module]:
    plain = PlainConvUNet(
        *(CHANNELS, 5, [32, 64, 128, 256, 512], nn.Conv2d, 3, [1, 2, 2, 2, 2], 2, CLASSES, 2),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    shape = {"in_channels": CHANNELS, "num_classes": CLASSES, "image_size": SIZE}
    return {
        "nnU-Net's U-Net": plain,
        "levit_unet_128s": create("levit_unet_128s", **shape),
        "levit_unet_128s, nnU-Net's levels": create("levit_unet_128s", unet_levels=True, **shape),
        "unet2022_tiny": create("unet2022_tiny", **shape),
        "unet2022_tiny, nnU-Net's levels, 1 block a stage": create(
            "unet2022_tiny", unet_levels=True, blocks=1, **shape
        ),
    }


def step(network: nn.Module, images: torch.Tensor, target: torch.Tensor, *, bf16: bool) -> float:
    start = process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = network(images)
    nn.functional.cross_entropy(logits.float(), target).backward()
    return process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, target = torch.randn(BATCH, CHANNELS, *SIZE), torch.randint(0, CLASSES, (BATCH, *SIZE))
    result = {}
    for name, network in networks().items():
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.repetitions + 1):
            for bf16, values in times.items():
                values.append(step(network, images, target, bf16=bf16))
        fp32, bf16 = (median(values[1:]) for values in times.values())  # the first ones choose kernels
        result[name] = {"fp32_seconds": round(fp32, 3), "bf16_seconds": round(bf16, 3)}
        print(f"{name}: {fp32:.2f} s in fp32, {bf16:.2f} s in bf16")
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
