"""``nnunetv2_levit inspect``."""

import argparse
from pathlib import Path

HELP = "a labelled slice of each case and a table with outliers marked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", type=int, required=True, help="nnU-Net dataset id")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: the raw dataset's)")
    parser.add_argument("-w", "--workers", type=int, default=4, help="cases in parallel (default 4)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.dataset_conversion.overview import inspect

    picture, rows = inspect(arguments.dataset, output=arguments.output, workers=arguments.workers)
    for row in rows:
        if row["outliers"]:
            print(f"{row['case']}: {', '.join(row['outliers'])}")
    marked = sum(1 for row in rows if row["outliers"])
    print(f"{len(rows)} cases, {marked} with outliers: {picture}, .md and .json beside it")
