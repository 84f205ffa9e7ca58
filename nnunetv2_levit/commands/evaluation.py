"""What trained models are worth."""

import argparse
from pathlib import Path

from nnunetv2_levit.commands import AddCommand


def _curves(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.training_curves import report

    for run in report(arguments.folders, arguments.output):
        last = run["epochs"][-1]
        dice = ", ".join("-" if value is None else f"{value:.3f}" for value in last["pseudo_dice"])
        print(f"{run['run']}, {run['fold']}: {len(run['epochs'])} epochs, pseudo Dice {dice} in the last")
    print(f"{arguments.output}, {arguments.output.with_suffix('.png')}")


def register(command: AddCommand) -> None:
    sub = command("curves", _curves, "training curves of one or several runs, from nnU-Net's logs")
    sub.add_argument("folders", type=Path, nargs="+", help="folders of trained folds, such as .../fold_0")
    sub.add_argument("-o", "--output", type=Path, required=True, help="JSON file; a PNG is written beside it")
