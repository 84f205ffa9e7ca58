"""Subcommands that hand their flags to a program of nnU-Net, with the trainers made known to it."""

import sys
from collections.abc import Sequence


def run_program(name: str, arguments: Sequence[str]) -> None:
    """Run one of nnU-Net's console scripts in this process."""
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name=name)
    sys.argv = [name, *arguments]
    entry.load()()
