"""The whole chain on the CPU."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.registration import AddCommand


def _demo(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.demo import run_demo

    run_demo(output=arguments.output, data=arguments.data)


def register(command: AddCommand) -> None:
    sub = command("demo", _demo, "run the whole chain on the CPU, from data to a scored prediction")
    sub.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for everything it writes")
    sub.add_argument("--data", type=Path, help="ACDC as released (default: a synthetic phantom)")
