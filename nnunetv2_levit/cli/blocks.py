"""``nnunetv2_levit blocks``."""

import argparse

from nnunetv2_levit.cli.model_flags import add_analysis_flags

HELP = "how many transformer blocks a trained model needs: knock out, truncate, fine-tune, evaluate, one table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_analysis_flags(parser)
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=(12, 3, 1), metavar="N",
        help="blocks to keep, in each stage if any; the network's own number tunes the whole one (default 12 3 1)",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, default=250, help="of each fine-tuning (default 250)")
    parser.add_argument("--margin", type=float, default=0.01, help="Dice that blocks may cost to go (default 0.01)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.block_study import PAGE, block_study

    result = block_study(
        arguments.model,
        output=arguments.output,
        blocks=arguments.blocks,
        iterations=arguments.iterations,
        fold=arguments.fold,
        checkpoint=arguments.checkpoint,
        margin=arguments.margin,
        device=arguments.device,
        trust_checkpoint=arguments.trust_checkpoint,
        progress=True,
    )
    print(result["knock_out"]["sentence"])
    print(f"read {arguments.output / PAGE}")
