"""``nnunetv2_levit truncate``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.model_flags import add_trust_flag

HELP = "make a model with fewer transformer blocks of a trained one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", type=Path, required=True, help="trained-model folder, of any number of folds")
    parser.add_argument("--blocks", type=int, required=True, help="transformer blocks to keep (in each stage, if any)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="trained-model folder to write")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where throughput is measured")
    add_trust_flag(parser)


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.truncation import as_text, truncate

    report = truncate(
        arguments.model,
        blocks=arguments.blocks,
        output=arguments.output,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        trust_checkpoint=arguments.trust_checkpoint,
        progress=True,
    )
    print(as_text(report, arguments.output))
