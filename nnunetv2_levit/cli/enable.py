"""``nnunetv2_levit enable``."""

import argparse

HELP = "make nnU-Net find the trainers in this Python environment for good"


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.environment import enable

    print(f"nnU-Net now finds the trainers in this Python environment, through {enable()}")
