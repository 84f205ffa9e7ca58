"""Ratio of the time of a forward pass in contiguous memory to that in channels-last memory, on this machine's CPU.

python docs/lab/experiments/memory_format.py [NETWORK ...]

A NETWORK is a registered one, or plain_conv_unet: nnU-Net's own with six stages and instance norm.
"""

import sys
from statistics import median
from time import perf_counter

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_levit.network_architectures import create


def build(name: str) -> nn.Module:
    if name != "plain_conv_unet":
        return create(name, in_channels=1, num_classes=4, image_size=(224, 224))
    return PlainConvUNet(
        input_channels=1,
        n_stages=6,
        features_per_stage=[32, 64, 128, 256, 512, 512],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2, 2, 2, 2, 2],
        n_conv_per_stage=2,
        num_classes=4,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def main() -> None:
    for name in sys.argv[1:] or ["unet2022_tiny", "levit_unet_128s"]:
        network = build(name).eval()
        ratios = []
        for _ in range(6):
            times = {}
            for memory_format in (torch.contiguous_format, torch.channels_last):
                network.to(memory_format=memory_format)
                images = torch.randn(2, 1, 224, 224).to(memory_format=memory_format)
                start = perf_counter()
                with torch.no_grad():
                    network(images)
                times[memory_format] = perf_counter() - start
            ratios.append(times[torch.contiguous_format] / times[torch.channels_last])
        print(
            f"{name}: contiguous / channels-last {median(ratios[1:]):.2f} ({', '.join(f'{r:.2f}' for r in ratios[1:])})"
        )


if __name__ == "__main__":
    main()
