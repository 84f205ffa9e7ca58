"""``nnunetv2_levit attention``."""

import argparse

from nnunetv2_levit.cli.model_flags import add_analysis_flags, add_slice_flags

HELP = "see and measure what the attention of a trained model does, and which blocks it needs"


def _place(text: str) -> tuple[float, float]:
    """ROW,COLUMN."""
    try:
        row, column = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no place: give ROW,COLUMN, such as 96,120") from None
    return row, column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_analysis_flags(parser)
    add_slice_flags(parser, labels="true labels of the cases, to choose queries by")
    parser.add_argument(
        "--query", type=_place, nargs="+", default=(), metavar="ROW,COLUMN",
        help="places to ask about, in voxels of the slice, from 0 (default: one token in each structure)",
    )  # fmt: skip
    parser.add_argument("--scores", choices=["softmax", "raw"], default="softmax", help="what maps show")
    parser.add_argument("--heads", choices=["mean", "each"], default="mean", help="each adds a picture a query")
    parser.add_argument(
        "--knock-out", action="store_true",
        help="measure Dice and HD95 with each block knocked out, on the cases of --labels or the fold's validation",
    )  # fmt: skip
    parser.add_argument("--margin", type=float, default=0.01, help="Dice that blocks may cost to go (default 0.01)")
    parser.add_argument("--mirroring", action="store_true", help="mirrored copies in the knock-out: 4 times the work")
    parser.add_argument("--patient", metavar="REGEX", help="its first group is a case's patient (default: as evaluate)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.attention import as_text, attention

    result = attention(
        arguments.model,
        images=arguments.images,
        output=arguments.output,
        fold=arguments.fold,
        labels=arguments.labels,
        slice_index=arguments.slice,
        queries=arguments.query,
        scores=arguments.scores,
        heads=arguments.heads,
        knock_out=arguments.knock_out,
        margin=arguments.margin,
        mirroring=arguments.mirroring,
        patient_pattern=arguments.patient,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        trust_checkpoint=arguments.trust_checkpoint,
        progress=True,
    )
    print(as_text(result, arguments.output))
