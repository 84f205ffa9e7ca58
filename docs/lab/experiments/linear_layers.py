"""Linear layers by torch and by oneDNN on the CPU, in turns, for shapes of UNet-2022 and LeViT at 224 x 224.

python docs/lab/experiments/linear_layers.py -o result.json

A ratio is torch's time / oneDNN's.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from torch import nn

from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.inference.onednn import OneDnnLinear

# tokens, channels in and out
SHAPES = [(3136, 96, 288), (3136, 384, 96), (784, 192, 768), (196, 384, 1536), (49, 768, 3072), (49, 512, 1024)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=50)
    arguments = parser.parse_args()
    rows = []
    with torch.inference_mode():
        for tokens, in_features, out_features in SHAPES:
            linear, x = nn.Linear(in_features, out_features), torch.randn(1, tokens, in_features)
            steps = {"torch": partial(linear, x), "onednn": partial(OneDnnLinear(linear), x)}
            seconds = interleaved(steps, repetitions=arguments.repetitions)
            ratio = round(seconds["torch"] / seconds["onednn"], 2)
            rows.append({"tokens": tokens, "in": in_features, "out": out_features, "ratio": ratio})
            print(rows[-1])
    result = {"device": f"{torch.get_num_threads()} CPU threads", "torch": torch.__version__, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
