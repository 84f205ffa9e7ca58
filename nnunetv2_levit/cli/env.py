"""``nnunetv2_levit env``."""

import argparse

HELP = "print the shell line that makes nnU-Net find the trainers"


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import shell_lines

    print(shell_lines())
