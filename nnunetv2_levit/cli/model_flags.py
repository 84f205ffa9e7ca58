"""Flags that several subcommands have which read a trained model."""

import argparse
from pathlib import Path


def fold(text: str) -> int | str:
    """A fold's number, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fold's number (0, 1, …) nor 'all'")
    return int(text)


def add_analysis_flags(parser: argparse.ArgumentParser) -> None:
    """Which fold of which model is analysed, and where results go."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="trained-model folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to, made if needed")
    parser.add_argument("-f", "--fold", type=fold, default=0, help="default 0")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default cpu")
    add_trust_flag(parser)


def add_slice_flags(parser: argparse.ArgumentParser, *, labels: str) -> None:
    """Which slice of which cases is looked at; ``labels`` is the help of ``--labels``."""
    parser.add_argument(
        "-i", "--images", type=Path, required=True, metavar="CASE_OR_FOLDER",
        help="image of a case (any of its channels), or a folder of cases",
    )  # fmt: skip
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help=labels)
    parser.add_argument(
        "--slice", type=int, metavar="N", help="of the image file, from 0 (default: the most structure)"
    )


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """``--trust-checkpoint``, worded once."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load the model even if its checkpoint or plans may run code: only if you trust whoever made it",
    )
