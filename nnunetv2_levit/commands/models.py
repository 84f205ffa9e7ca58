"""Turning a trained model into another one."""

import argparse
from pathlib import Path

from nnunetv2_levit.commands import AddCommand


def _truncate(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.truncation import as_text, truncate

    report = truncate(
        arguments.model,
        blocks=arguments.blocks,
        output=arguments.output,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
    )
    print(as_text(report, arguments.output))


def register(command: AddCommand) -> None:
    sub = command("truncate", _truncate, "make a model with fewer transformer blocks of a trained one")
    sub.add_argument("-m", "--model", type=Path, required=True, help="trained-model folder, of any number of folds")
    sub.add_argument("--blocks", type=int, required=True, help="transformer blocks to keep (in each stage, if any)")
    sub.add_argument("-o", "--output", type=Path, required=True, help="trained-model folder to write")
    sub.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where throughput is measured")
