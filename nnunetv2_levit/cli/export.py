"""``nnunetv2_levit export``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.model_flags import add_trust_flag, fold

HELP = "write one fold of a trained 2D model as ONNX, checked against torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", type=Path, required=True, help="trained model folder (TRAINER__PLANS__CONFIG)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, model.onnx")
    parser.add_argument("-f", "--fold", type=fold, default=0, help="fold to export (default 0), or all")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    add_trust_flag(parser)


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.inference.export import export

    facts = export(
        arguments.model,
        output=arguments.output,
        fold=arguments.fold,
        checkpoint=arguments.checkpoint,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    print(
        f"{arguments.output}: {facts['trainer']}, fold {facts['fold']}; largest difference from torch "
        f"{facts['max_abs_difference']:.1e} on {facts['checked_on']}"
    )
