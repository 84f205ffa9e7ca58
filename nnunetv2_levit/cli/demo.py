"""``nnunetv2_levit demo``."""

import argparse
from pathlib import Path

HELP = "run the whole chain on the CPU, from data to a scored prediction"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for everything it writes")
    parser.add_argument("--data", type=Path, help="ACDC as released (default: a synthetic phantom)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.demo import run_demo

    run_demo(output=arguments.output, data=arguments.data)
