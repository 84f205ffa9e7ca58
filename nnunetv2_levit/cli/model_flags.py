"""Flags that several subcommands have which read a trained model."""

import argparse


def fold(text: str) -> int | str:
    """A fold's number, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fold's number (0, 1, …) nor 'all'")
    return int(text)


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """``--trust-checkpoint``, worded once."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load the model even if its checkpoint or plans may run code: only if you trust whoever made it",
    )
