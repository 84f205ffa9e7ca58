"""``nnunetv2_levit disable``."""

import argparse

HELP = "undo enable"


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import disable

    print("disabled" if disable() else "there was nothing to disable")
