"""``nnunetv2_levit trainers``."""

import argparse
import json

HELP = "list trainer families, sizes and options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.trainers.listing import list_trainers, trainers_text

    print(json.dumps(list_trainers(), indent=2) if arguments.json else trainers_text())
