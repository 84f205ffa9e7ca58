"""Networks as plain PyTorch modules beside what this package makes of them, all in one interleaved run.

python docs/lab/experiments/networks_speed.py -o result.json [--device cuda] [--networks …] [--batch …]
    [--modes inference folded onnx compiled training training_compiled]

"plain" is the module in contiguous memory, every channel mixed after upsampling, nothing folded; the other modes are
the benchmark's (`nnunetv2_levit benchmark --help`). A ratio is plain time / time of the mode; training modes are
compared with plain training. Rows of an earlier run with the same device, torch and patch stay in the result, except
those measured again: many networks may be measured in several runs.
"""

import argparse
import json
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_levit.benchmark.networks import REFERENCES, build
from nnunetv2_levit.benchmark.steps import make_step
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.network_architectures.layers import upsampled_convolution

ORIGINAL = {name: getattr(upsampled_convolution, name) for name in ("pays", "resize", "concatenate")}


def upsampled_first(step):
    """The step with every channel mixed after upsampling.

    Convolutions of the same sources share one upsampled map, as code written that way would have it.
    """

    def run():
        concatenated = lru_cache(maxsize=1)(ORIGINAL["concatenate"])
        upsampled_convolution.pays = lambda *_: False
        upsampled_convolution.resize = lru_cache(maxsize=1)(ORIGINAL["resize"])
        upsampled_convolution.concatenate = lambda sources: concatenated(tuple(sources))
        try:
            return step()
        finally:
            for name, function in ORIGINAL.items():
                setattr(upsampled_convolution, name, function)

    return run


def earlier_rows(path: Path, result: dict, networks: list[str], batches: list[int], modes: list[str]) -> list[dict]:
    """Rows of the file that this run does not measure again; none of a run that can't be put beside this one."""
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    if any(earlier.get(key) != json.loads(json.dumps(result[key])) for key in ("device", "torch", "patch_size")):
        return []
    measured = {mode.startswith("training") for mode in modes}
    return [
        row
        for row in earlier["rows"]
        if row["network"] not in networks or row["batch"] not in batches or row["training"] not in measured
    ]


def plain(network, *, images, num_classes, training):
    network = network.to(images.device, memory_format=torch.contiguous_format).train(training)
    network.memory_format = torch.contiguous_format  # of the image, and so of all maps
    cuda = images.is_cuda
    if not training:

        def infer():
            with torch.inference_mode(), torch.autocast("cuda", enabled=cuda):
                network(images.contiguous())
            if cuda:
                torch.cuda.synchronize()

        return upsampled_first(infer)
    return upsampled_first(make_step(network, "training", images=images, num_classes=num_classes))


def gmac(network, image):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return round(counter.get_total_flops() / 2e9, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", default=["levit_unet_128s", "levit_unet_192", "levit_unet_384"])
    parser.add_argument("--patch", type=int, nargs=2, default=(224, 224))
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--modes", nargs="+", default=["inference", "folded", "onnx"])
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    patch, classes = tuple(arguments.patch), 9
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    result = {"device": device, "torch": torch.__version__, "patch_size": patch}
    rows = earlier_rows(arguments.output, result, arguments.networks, arguments.batch, arguments.modes)
    result["rows"] = rows
    for batch in arguments.batch:
        images = torch.randn(batch, 1, *patch, device=arguments.device)
        for training in (False, True):
            modes = [mode for mode in arguments.modes if mode.startswith("training") == training]
            if not modes:
                continue
            steps, macs = {}, {}
            for name in arguments.networks:

                def new(name=name):
                    return build(name, in_channels=1, num_classes=classes, patch_size=patch).to(arguments.device)

                network = new().eval()
                macs[name] = {"now": gmac(network, images[:1])}
                macs[name]["plain"] = upsampled_first(partial(gmac, network, images[:1]))()
                if name not in REFERENCES:
                    steps[name, "plain"] = plain(new(), images=images, num_classes=classes, training=training)
                for mode in modes:
                    steps[name, mode] = make_step(new(), mode, images=images, num_classes=classes)
            seconds = interleaved(steps, repetitions=arguments.repetitions)
            for name in arguments.networks:
                own = {mode: value for (network, mode), value in seconds.items() if network == name}
                rows.append({"network": name, "batch": batch, "training": training, "gmac": macs[name], "seconds": own})
                base = own.get("plain", next(iter(own.values())))
                print(
                    f"{name} batch {batch} {'training' if training else 'inference'}, GMAC {macs[name]['plain']} -> "
                    f"{macs[name]['now']}; images/s "
                    + ", ".join(f"{mode} {batch / value:.4g} (x{base / value:.2f})" for mode, value in own.items())
                )
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")  # each part, should the next be stopped


if __name__ == "__main__":
    main()
