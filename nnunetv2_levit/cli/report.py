"""``nnunetv2_levit report``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.named_results import name_and_value, results_by_name
from nnunetv2_levit.errors import UserError

HELP = "an HTML page of evaluations, the papers' rows, cases and curves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="[NAME=]RESULT", help="what evaluate wrote; the first is compared with"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--images", type=Path, help="folder of the evaluated images, to show worst, median and best case"
    )
    parser.add_argument("--curves", type=Path, nargs="+", help="folders of trained folds, for their training curves")
    parser.add_argument("--benchmark", type=Path, help="JSON of the benchmark command, for speed against accuracy")
    parser.add_argument(
        "--network", nargs="+", metavar="NAME=NETWORK", help="the benchmark's network of a result's NAME"
    )
    parser.add_argument("--paper-dataset", help="the dataset's name in the papers (default: that of the results)")


def _networks(texts: list[str]) -> dict[str, str]:
    networks: dict[str, str] = {}
    for text in texts:
        name, network = name_and_value(text)
        if name in networks:
            raise UserError(f"--network names {name!r} twice: give one network for each result")
        networks[name] = network
    return networks


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.report import ReportRequest, write_report

    evaluations = {}
    for name, paths in results_by_name(arguments.results).items():
        if len(paths) > 1:
            raise UserError(f"{name} has several results: a report takes one for each model (compare pools them)")
        evaluations[name] = paths[0]
    page = write_report(
        ReportRequest(
            evaluations=evaluations,
            output=arguments.output,
            images=arguments.images,
            curves=arguments.curves or (),
            benchmark=arguments.benchmark,
            networks=_networks(arguments.network or []),
            paper_dataset=arguments.paper_dataset,
        )
    )
    print(f"{page}, and its tables and pictures beside it")
