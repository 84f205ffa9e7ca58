"""Time of a 3x3 convolution after upsampling, its channels mixed before and after, on this machine.

python docs/lab/experiments/upsampled_convolution.py -o result.json [--device cuda] [--batch 1 4] [--training]

Both forms run alternately; a row gives the medians, their ratio, and the multiply-adds from which
`upsampled_convolution.pays` chooses. With --fit it prints the contraction cost that chooses best.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from commands import command_line
from tqdm import tqdm

from nnunetv2_levit.network_architectures.layers import upsampled_convolution as module
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import Source, UpsampledConv2d

# input channels, output channels, low side, high side: decoder blocks of the registered networks, and around them
SHAPES = [
    *((1152, 512, 14, 28), (768, 512, 14, 28), (704, 256, 28, 56), (352, 128, 56, 112)),  # LeViT-UNet-384
    *((608, 256, 28, 56), (304, 128, 56, 112), (544, 256, 28, 56), (288, 128, 56, 112)),  # 192 and 128s
    *((512, 256, 14, 28), (384, 128, 12, 24), (128, 64, 24, 48), (64, 64, 56, 112), (128, 64, 56, 112)),
    *((64, 16, 112, 224), (128, 16, 112, 224), (64, 32, 64, 128), (32, 32, 128, 256), (352, 128, 128, 256)),
]


def measure(shape, *, batch: int, device: str, training: bool, repetitions: int) -> dict:
    channels, out_channels, low, high = shape
    conv = UpsampledConv2d([channels], out_channels).to(device, memory_format=torch.channels_last)
    x = torch.randn(batch, channels, low, low, device=device).contiguous(memory_format=torch.channels_last)
    source = Source(x.requires_grad_(training), ((high, high),))
    times = {"after": [], "before": []}
    if not training:
        conv.precompute()
    for _ in range(repetitions + 2):
        for form, seconds in times.items():
            module.pays = lambda *_, form=form: form == "before"
            start = perf_counter()
            with torch.set_grad_enabled(training), torch.autocast("cuda", torch.float16, enabled=device == "cuda"):
                out = conv([source])
                if training:
                    out.sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(perf_counter() - start)
    after, before = (median(seconds[2:]) for seconds in times.values())
    direct, mixing, contractions = module._multiply_adds(source, out_channels)
    return {
        "shape": shape,
        "batch": batch,
        "seconds_after": after,
        "seconds_before": before,
        "ratio": after / before,
        "gmac": {"after": direct / 1e9, "mixing": mixing / 1e9, "contractions": contractions / 1e9},
    }


def fit(rows: list[dict]) -> float:
    """The contraction cost whose choices lose the least time."""

    def lost(cost: float) -> float:
        total = 0.0
        for row in rows:
            gmac = row["gmac"]
            chosen = "before" if gmac["mixing"] + cost * gmac["contractions"] < gmac["after"] else "after"
            total += row[f"seconds_{chosen}"] / min(row["seconds_after"], row["seconds_before"])
        return total

    return min((0.5 * step for step in range(1, 61)), key=lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = arguments.training  # as nnU-Net trains, and as `predict` predicts
    rows = []
    for batch, shape in tqdm(list(product(arguments.batch, SHAPES))):
        rows.append(
            measure(
                shape,
                batch=batch,
                device=arguments.device,
                training=arguments.training,
                repetitions=arguments.repetitions,
            )
        )
    for row in rows:
        gmac = row["gmac"]
        relative = (gmac["after"] - gmac["mixing"]) / gmac["contractions"]
        print(f"{row['shape']} batch {row['batch']}: after / before {row['ratio']:.2f}, break-even cost {relative:.1f}")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    result = {
        "command": command_line(),
        "device": device,
        "torch": torch.__version__,
        "training": arguments.training,
        "fit": fit(rows),
        "rows": rows,
    }
    print(f"best contraction cost {result['fit']}")
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
