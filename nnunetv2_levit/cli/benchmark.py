"""``nnunetv2_levit benchmark``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.network_flags import add_network_settings

HELP = "measure parameters, multiply-adds, time and memory of the networks"


def _patch(text: str) -> tuple[int, int]:
    """``224`` or ``256x224`` (height x width)."""
    sides = text.lower().split("x")
    try:
        values = [int(side) for side in sides]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a side (224) nor height x width (256x224)")
    return values[0], values[-1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NAME",
        help="registered networks, nnunet_plain, nnunet_resenc_m (default: all of these), or any by its name, such as "
        "smp:Unet/resnet34",
    )
    add_network_settings(parser)
    parser.add_argument(
        "--patch", type=_patch, nargs="+", default=[(224, 224)], metavar="SIDE", help="224 (default) or 256x224"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="images at once (default 1)")
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["inference"],
        metavar="MODE",
        help="inference (default), folded, compiled, graphs, onnx, training, training_compiled",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--classes", type=int, default=4, help="classes (default 4)")
    parser.add_argument("--repetitions", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out memory, which takes a process each on a CPU"
    )
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="on CUDA let cuDNN time its algorithms in inference too, as nnU-Net does",
    )
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON, with .md and .png beside it")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.any_network.settings import parse_settings
    from nnunetv2_levit.benchmark.measure import run as measure
    from nnunetv2_levit.benchmark.networks import measurable
    from nnunetv2_levit.benchmark.results import write_benchmark
    from nnunetv2_levit.cli.network_flags import find_in_this_folder
    from nnunetv2_levit.files import beside, check_writable
    from nnunetv2_levit.tables import benchmark_markdown

    if arguments.output is not None:
        for path in (arguments.output, *beside(arguments.output, ".md", ".png")):
            check_writable(path)
    settings = parse_settings(arguments.set)
    find_in_this_folder()
    result = measure(
        networks=arguments.networks or list(measurable()),
        patch_sizes=arguments.patch,
        batch_sizes=arguments.batch,
        modes=arguments.modes,
        device=arguments.device,
        repetitions=arguments.repetitions,
        num_classes=arguments.classes,
        settings=settings,
        memory=not arguments.no_memory,
        autotune=arguments.autotune,
        progress=True,
    )
    if arguments.output is not None:
        write_benchmark(result, arguments.output)
    print(benchmark_markdown(result))
