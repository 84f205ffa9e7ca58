"""Making the trainers known to nnU-Net, and listing them."""

import argparse

from nnunetv2_levit.cli.registration import AddCommand


def _env(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import shell_lines

    print(shell_lines())


def _enable(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import enable

    print(f"nnU-Net now finds the trainers in this Python environment, through {enable()}")


def _disable(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import disable

    print("disabled" if disable() else "there was nothing to disable")


def _trainers(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.trainers.listing import as_json, as_text

    print(as_json() if arguments.json else as_text())


def register(command: AddCommand) -> None:
    command("env", _env, "print the shell line that makes nnU-Net find the trainers")
    command("enable", _enable, "make nnU-Net find the trainers in this Python environment for good")
    command("disable", _disable, "undo enable")
    sub = command("trainers", _trainers, "list trainer families, sizes and options")
    sub.add_argument("--json", action="store_true", help="as JSON")
