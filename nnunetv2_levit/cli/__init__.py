"""The command ``nnunetv2_levit``: a module of this folder for each subcommand, named like it (`-` is `_`).

A subcommand has ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``, which imports what is heavy. One that hands
its flags to nnU-Net has ``PROGRAM`` and ``run(words)`` instead.
"""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

import nnunetv2_levit
from nnunetv2_levit.cli import (
    attention,
    benchmark,
    blocks,
    cam,
    check_network,
    compare,
    configure,
    convert,
    curves,
    demo,
    disable,
    enable,
    env,
    evaluate,
    export,
    inspect,
    plan,
    predict,
    report,
    study,
    train,
    trainers,
    truncate,
)
from nnunetv2_levit.cli.arguments import check_words, plain_sentences
from nnunetv2_levit.cli.exit_codes import exit_on_user_error
from nnunetv2_levit.cli.library_warnings import hide_library_warnings

# in the order of the help
SUBCOMMANDS: tuple[ModuleType, ...] = (
    *(env, enable, disable, trainers),
    *(convert, inspect, check_network, configure),
    *(benchmark, export, truncate, predict),
    *(attention, blocks, cam),
    *(evaluate, compare, report, curves, study),
    demo,
)
PASSED_THROUGH = {"train": train.PROGRAM, "plan": plan.PROGRAM}


def _name(subcommand: ModuleType) -> str:
    return subcommand.__name__.rpartition(".")[2].replace("_", "-")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; those passed through to nnU-Net are only named."""
    parser = argparse.ArgumentParser(prog="nnunetv2_levit", description="Transformer-CNN hybrids for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"nnunetv2_levit {nnunetv2_levit.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        own = commands.add_parser(_name(subcommand), help=subcommand.HELP, description=subcommand.HELP)
        own.set_defaults(run=subcommand.run)
        subcommand.add_arguments(own)
    for name, program in PASSED_THROUGH.items():
        commands.add_parser(name, help=f"{program} with the trainers made known (takes its flags)", add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one sentence and exit code 2."""
    hide_library_warnings()
    words = list(sys.argv[1:] if argv is None else argv)
    with exit_on_user_error():
        check_words(words)
        for subcommand in (train, plan):
            if words[:1] == [_name(subcommand)]:
                subcommand.run(words[1:])
                return
        with plain_sentences():
            parsed = build_parser().parse_args(words)
            parsed.run(parsed)
