"""Exports every registered network at a small patch and compares ONNX Runtime with torch.

python docs/lab/experiments/export_all.py -o result.json [--networks …]

Rows of an earlier run with the same patch and versions stay in the result, except those of networks exported again.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter

import onnx
import onnxruntime
import torch

from nnunetv2_levit.inference.export import compare
from nnunetv2_levit.inference.onnx_backend import to_onnx
from nnunetv2_levit.network_architectures import REGISTRY, create


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(REGISTRY))
    parser.add_argument("--patch", type=int, nargs=2, default=(64, 64))
    arguments = parser.parse_args()
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    result = {"patch_size": list(arguments.patch), "versions": versions}
    earlier = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    same = all(earlier.get(key) == value for key, value in result.items())
    rows = {row["network"]: row for row in earlier["rows"]} if same else {}
    for name in arguments.networks:
        torch.manual_seed(0)
        network = create(name, in_channels=1, num_classes=4, image_size=tuple(arguments.patch)).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # norms and layer scales that start at zero would hide their branch
                parameter.add_(0.05 * torch.randn_like(parameter))
        start = perf_counter()
        model = to_onnx(network, in_channels=1, image_size=tuple(arguments.patch))
        seconds = perf_counter() - start
        row = {"network": name, "mib": round(len(model) / 2**20, 1), "seconds": round(seconds, 1)}
        row |= compare(network, model, torch.randn(3, 1, *arguments.patch))
        rows[name] = row
        print(row, flush=True)
        result["rows"] = [rows[name] for name in REGISTRY if name in rows]
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
