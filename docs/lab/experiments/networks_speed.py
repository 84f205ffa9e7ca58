"""Networks as plain PyTorch modules beside what this package makes of them, all in one interleaved run.

python docs/lab/experiments/networks_speed.py -o result.json [--device cuda] [--networks …] [--batch …] [--autotune]
    [--modes inference folded onnx compiled graphs training training_compiled]

"plain" is the module in contiguous memory, every channel mixed after upsampling, nothing folded; the other modes are
the benchmark's (`nnunetv2_levit benchmark --help`). A ratio is plain time / time of the mode; training modes are
compared with plain training, which differs in the mixing alone. Rows of an earlier run with the same device, torch and
patch stay in the result, except those measured again: many networks may be measured in several runs.

The result is written when all that needs no compiling is measured, again after each network that was compiled, and at
the end with all in turn. So a run that is stopped for time keeps what it has.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

import torch
from commands import command_line
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_levit.benchmark.networks import REFERENCES, build
from nnunetv2_levit.benchmark.steps import cudnn_autotuning, is_autotuned, make_step
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.network_architectures.layers import upsampled_convolution

COMPILED = ("compiled", "graphs", "training_compiled")
REPETITIONS = {"cpu": 7, "cuda": 30}  # seven steps of a GPU may be a few milliseconds
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


def plain(network, *, images, num_classes, training, autotune):
    if training:
        return upsampled_first(make_step(network, "training", images=images, num_classes=num_classes))
    network = network.to(images.device, memory_format=torch.contiguous_format).eval()
    network.memory_format = torch.contiguous_format  # of the image, and so of all maps
    cuda = images.is_cuda

    def infer():
        with cudnn_autotuning(autotune), torch.inference_mode(), torch.autocast("cuda", enabled=cuda):
            network(images.contiguous())
        if cuda:
            torch.cuda.synchronize()

    return upsampled_first(infer)


Seconds = dict[tuple[str, str], float]  # by network and mode


def measured(steps: Mapping[tuple[str, str], Callable[[], object]], *, repetitions: int) -> Iterator[Seconds]:
    """Seconds of the steps, so far: without those to compile, with each of these when it is, and of all in turn."""
    ready = {key: step for key, step in steps.items() if key[1] not in COMPILED}
    seconds = interleaved(ready, repetitions=repetitions)
    yield seconds
    if len(ready) == len(steps):
        return
    for key, step in steps.items():
        if key not in ready:
            try:
                seconds = seconds | interleaved({key: step}, repetitions=repetitions)
            except RuntimeError as error:
                print(f"{' '.join(key)} not measured: {error}", flush=True)
                continue
            ready[key] = step
            yield seconds
    yield interleaved(ready, repetitions=repetitions)


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
    parser.add_argument("--repetitions", type=int, help="timed rounds (default 7, on CUDA 30)")
    parser.add_argument("--autotune", action="store_true", help="cuDNN's autotuning in inference too")
    arguments = parser.parse_args()
    patch, classes, autotune = tuple(arguments.patch), 9, arguments.autotune
    repetitions = arguments.repetitions or REPETITIONS[arguments.device]
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    result = {"device": device, "torch": torch.__version__, "patch_size": patch}
    done = earlier_rows(arguments.output, result, arguments.networks, arguments.batch, arguments.modes)
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
                options = {"images": images, "num_classes": classes, "autotune": autotune}
                if name not in REFERENCES:
                    steps[name, "plain"] = plain(new(), training=training, **options)
                for mode in modes:
                    steps[name, mode] = make_step(new(), mode, **options)
            facts = {"batch": batch, "training": training, "cudnn_autotuning": is_autotuned(modes[0], autotune)}
            for seconds in measured(steps, repetitions=repetitions):
                rows = []
                for name in arguments.networks:
                    own = {mode: value for (network, mode), value in seconds.items() if network == name}
                    rows.append({"network": name, **facts, "gmac": macs[name], "seconds": own})
                    rows[-1]["command"] = command_line()
                result["rows"] = done + rows
                arguments.output.write_text(json.dumps(result, indent=1) + "\n")  # should the rest be stopped
            done += rows
            for row in rows:
                print_ratios(row)
            del steps
            torch.compiler.reset()  # or the next batch size is compiled for any


def print_ratios(row: Mapping) -> None:
    seconds, macs, batch = row["seconds"], row["gmac"], row["batch"]
    if not seconds:
        return
    base = seconds.get("plain", next(iter(seconds.values())))
    print(
        f"{row['network']} batch {batch} {'training' if row['training'] else 'inference'}, GMAC {macs['plain']} -> "
        f"{macs['now']}; images/s "
        + ", ".join(f"{mode} {batch / value:.4g} (x{base / value:.2f})" for mode, value in seconds.items()),
        flush=True,
    )


if __name__ == "__main__":
    main()
