"""``nnunetv2_levit check-network``."""

import argparse
import json
from pathlib import Path

from nnunetv2_levit.cli.network_flags import add_network_settings

HELP = "check what nnU-Net expects of a network on any 2D network"
SOME_BROKEN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="package.module:Class, a registered network, smp:Unet/resnet34, timm:convnext_tiny or monai:SwinUNETR",
    )
    add_network_settings(parser)
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="RULE", help="rules to leave out, such as onnx or cost"
    )
    parser.add_argument(
        "--patch", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"), help="for the cost (default 224)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON, too")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.any_network.settings import parse_settings
    from nnunetv2_levit.cli.network_flags import find_in_this_folder
    from nnunetv2_levit.files import check_writable, write_json
    from nnunetv2_levit.network_check.check import check_network, check_text

    if arguments.output is not None:
        check_writable(arguments.output)
    find_in_this_folder()
    result = check_network(
        arguments.network,
        settings=parse_settings(arguments.set),
        skip=arguments.skip,
        patch_size=tuple(arguments.patch),
        progress=not arguments.json,
    )
    if arguments.output is not None:
        write_json(arguments.output, result)
    print(json.dumps(result, indent=1) if arguments.json else check_text(result))
    if not result["kept"]:
        raise SystemExit(SOME_BROKEN)
