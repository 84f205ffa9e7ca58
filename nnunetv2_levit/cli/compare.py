"""``nnunetv2_levit compare``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.named_results import results_by_name

HELP = "paired differences of models from the first, with intervals and tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="[NAME=]RESULT[,RESULT…]", help="what evaluate wrote; several: seeds or folds"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.compare import compare
    from nnunetv2_levit.tables import comparison_markdown

    result = compare(results_by_name(arguments.results), output=arguments.output)
    print(comparison_markdown(result))
    print(f"{arguments.output / 'comparison.json'}, .md, .csv and .png beside it")
