"""``nnunetv2_levit curves``."""

import argparse
from pathlib import Path

HELP = "training curves of one or several runs, from nnU-Net's logs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", help="folders of trained folds, such as .../fold_0")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file; a PNG is written beside it")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.training_curves import write_curves

    for training in write_curves(arguments.folders, arguments.output):
        last = training["epochs"][-1]
        dice = ", ".join("-" if value is None else f"{value:.3f}" for value in last["pseudo_dice"])
        epochs = len(training["epochs"])
        print(f"{training['run']}, {training['fold']}: {epochs} epochs, pseudo Dice {dice} in the last")
    print(f"{arguments.output}, {arguments.output.with_suffix('.png')}")
