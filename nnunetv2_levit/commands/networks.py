"""Cost of the networks."""

import argparse
from pathlib import Path

from nnunetv2_levit.commands import AddCommand


def _benchmark(arguments: argparse.Namespace) -> None:
    import json

    from nnunetv2_levit.benchmark.measure import as_markdown, run
    from nnunetv2_levit.network_architectures import REGISTRY

    result = run(
        networks=arguments.networks or list(REGISTRY),
        patch_sizes=[(side, side) for side in arguments.patch],
        batch_size=arguments.batch,
        device=arguments.device,
        repetitions=arguments.repetitions,
    )
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(as_markdown(result))


def register(command: AddCommand) -> None:
    sub = command("benchmark", _benchmark, "measure parameters, multiply-adds, time and memory of the networks")
    sub.add_argument("--networks", nargs="+", metavar="NAME", help="registered networks (default: all)")
    sub.add_argument("--patch", type=int, nargs="+", default=[224], metavar="SIDE", help="square patches (default 224)")
    sub.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    sub.add_argument("--repetitions", type=int, default=5, help="timed forward passes (default 5)")
    sub.add_argument("-o", "--output", type=Path, help="also write the result as JSON")
