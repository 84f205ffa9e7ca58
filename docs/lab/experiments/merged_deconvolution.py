"""Whether a transposed 2x2 convolution of stride 2 is better merged with the 3x3 convolution after it.

python docs/lab/experiments/merged_deconvolution.py -o result.json [--batch 1]

Nothing stands between the two in `DeconvBlock`, so together they are one transposed 4x4 convolution of stride 2 and
padding 1. The bias of the first reaches the border with fewer taps, so it becomes a map. Both forms are checked to be
equal and timed in turns, in torch (channels-last memory) and in ONNX Runtime; a ratio is time of the two / time merged.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.inference.onnx_backend import OnnxBackend, to_onnx

# channels in and out, side of the small map at an image of 224: 2D UNETR's, then 2D CATS's
SHAPES = [(768, 512, 14), (512, 256, 28), (256, 128, 56), (128, 64, 112), (1024, 512, 14), (256, 64, 56)]


class Both(nn.Module):
    """Transposed 2x2 convolution of stride 2, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.up(x))


class Merged(nn.Module):
    """The same as one transposed convolution and a map of the bias."""

    def __init__(self, both: Both) -> None:
        super().__init__()
        with torch.no_grad():
            self.weight = nn.Parameter(F.conv2d(both.up.weight, both.conv.weight, padding=2))  # (C, O, 4, 4)
            self.bias = both.conv.bias
            self.taps = nn.Parameter(torch.einsum("omyx,m->oyx", both.conv.weight, both.up.bias)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        border = F.conv2d(x.new_ones(1, 1, 2 * x.shape[2], 2 * x.shape[3]), self.taps, padding=1)
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1) + border


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    rows = []
    for in_channels, out_channels, side in SHAPES:
        torch.manual_seed(0)
        forms = {"both": Both(in_channels, out_channels)}
        forms["merged"] = Merged(forms["both"])
        x = torch.randn(arguments.batch, in_channels, side, side).contiguous(memory_format=torch.channels_last)
        steps = {}
        with torch.inference_mode():
            torch.testing.assert_close(forms["merged"](x), forms["both"](x), rtol=0, atol=1e-4)
            for name, form in forms.items():
                form.to(memory_format=torch.channels_last)
                onnx = OnnxBackend(to_onnx(form, in_channels=in_channels, image_size=(side, side)))
                steps |= {name: partial(form, x), f"{name}, onnx": partial(onnx, x)}
            seconds = interleaved(steps, repetitions=arguments.repetitions)
        arithmetic = (4 * in_channels + 36 * out_channels) / (16 * in_channels)
        row = {
            "shape": (in_channels, out_channels, side),
            "multiply_adds": round(arithmetic, 2),
            "torch": round(seconds["both"] / seconds["merged"], 2),
            "onnx": round(seconds["both, onnx"] / seconds["merged, onnx"], 2),
        }
        rows.append(row)
        print(row, flush=True)
    arguments.output.write_text(json.dumps({"batch": arguments.batch, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
