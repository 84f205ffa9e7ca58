"""What the subcommands share that take any network by name."""

import argparse
import sys
from pathlib import Path


def add_network_settings(parser: argparse.ArgumentParser) -> None:
    """``--set``, worded once."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the network's class, again for each; {channels}, {classes} and {image_size} stand for "
        "what nnU-Net plans",
    )


def find_in_this_folder() -> bool:
    """Let Python find modules of the current folder, as ``python -m`` does; false where it did already."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        return False
    sys.path.append(here)
    return True
