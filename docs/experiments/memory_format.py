"""Ratio of the time of a forward pass in contiguous memory to that in channels-last memory, on this machine's CPU.

python docs/experiments/memory_format.py [NETWORK ...]
"""

import sys
from statistics import median
from time import perf_counter

import torch

from nnunetv2_levit.network_architectures import create


def main() -> None:
    for name in sys.argv[1:] or ["unet2022_tiny", "levit_unet_128s"]:
        network = create(name, in_channels=1, num_classes=4, image_size=(224, 224)).eval()
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
