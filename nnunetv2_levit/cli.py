"""The command ``nnunetv2_levit``. Its subcommands are in `commands`."""

import argparse
import sys
from collections.abc import Sequence

import nnunetv2_levit
from nnunetv2_levit.commands import datasets, demo, evaluation, models, networks, nnunet, prediction, study
from nnunetv2_levit.errors import exit_on_user_error

GROUPS = (nnunet, datasets, networks, models, prediction, evaluation, study, demo)

# subcommands that hand everything to nnU-Net, with the trainers made known to it
PASSED_THROUGH = {
    "train": "nnUNetv2_train",
    "plan": "nnUNetv2_plan_and_preprocess",
}


def _run_nnunet(command: str, arguments: Sequence[str]) -> None:
    from importlib.metadata import entry_points

    from nnunetv2_levit.environment import set_up_process

    set_up_process()
    (entry,) = entry_points(group="console_scripts", name=PASSED_THROUGH[command])
    sys.argv = [PASSED_THROUGH[command], *arguments]
    entry.load()()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands except those passed through to nnU-Net."""
    parser = argparse.ArgumentParser(prog="nnunetv2_levit", description="Transformer-CNN hybrids for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"nnunetv2_levit {nnunetv2_levit.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    for group in GROUPS:
        group.register(command)
    for name, target in PASSED_THROUGH.items():
        commands.add_parser(name, help=f"{target} with the trainers made known (takes its flags)", add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one sentence and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with exit_on_user_error():
        if arguments and arguments[0] in PASSED_THROUGH:
            _run_nnunet(arguments[0], arguments[1:])
            return
        parsed = build_parser().parse_args(arguments)
        parsed.function(parsed)


if __name__ == "__main__":
    main()
