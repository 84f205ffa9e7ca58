"""A training step of UNet-2022 tiny on a CPU, with torch's gradient of depth-wise weights and with ours, in turn.

    python docs/lab/experiments/depthwise_gradient.py -o docs/lab/results/depthwise_gradient.json

One thread, forward and backward of 8 patches of 112 x 112, in processor time, which other work on the machine changes
little.
"""

import argparse
from pathlib import Path
from statistics import median
from time import process_time

import torch
from tqdm import tqdm

from nnunetv2_levit.files import write_json
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.layers import depthwise_convolution


def step(network: torch.nn.Module, images: torch.Tensor, *, bf16: bool) -> float:
    start = process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = network(images)
    logits.float().square().mean().backward()
    return process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = create("unet2022_tiny", in_channels=1, num_classes=4, image_size=(112, 112))
    images = torch.randn(8, 1, 112, 112)
    sizes = {"torch": 0, "ours": depthwise_convolution.LARGEST_MAP}
    result = {}
    for bf16 in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in sizes}
        for repetition in tqdm(range(arguments.repetitions + 1), desc="bf16" if bf16 else "fp32"):
            for name, largest in sizes.items():
                depthwise_convolution.LARGEST_MAP = largest
                taken = step(network, images, bf16=bf16)
                if repetition > 0:  # the first one warms up
                    seconds[name].append(taken)
        medians = {name: round(median(values), 3) for name, values in seconds.items()}
        ratio = round(medians["torch"] / medians["ours"], 2)
        result["bf16" if bf16 else "fp32"] = {"seconds": medians, "torch_over_ours": ratio}
    print(result)
    write_json(arguments.output, {"torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
