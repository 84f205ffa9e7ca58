"""``nnunetv2_levit convert``."""

import argparse
from pathlib import Path

from nnunetv2_levit.errors import UserError

HELP = "convert a published dataset to nnU-Net's raw format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="acdc, synapse, …; --list shows all")
    parser.add_argument("--list", action="store_true", help="show all converters with their expected layout and splits")
    parser.add_argument("-i", "--input", type=Path, help="the dataset as released and unpacked")
    parser.add_argument("-d", "--dataset", type=int, help="nnU-Net dataset id, 1 to 999")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--splits",
        default="crossval",
        help="crossval (5 folds by patient, where the release names patients; the default), none, or a paper's (--list "
        "shows them)",
    )
    parser.add_argument("--test-split", help="synapse: transunet sets its 12 test cases aside as imagesTs and labelsTs")
    parser.add_argument("--organs", type=int, default=8, help="synapse: 8 (the papers', default) or 13")
    parser.add_argument("--task", help="msd without dataset.json: the prefix of the task's case names")
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="mm, for sources that lost it")
    parser.add_argument("--fix-geometry", action="store_true", help="labels take the header of their image")
    parser.add_argument("--keep-copies", action="store_true", help="keep cases with the same image and label")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset of this id and name")
    parser.add_argument("-w", "--workers", type=int, default=4, help="cases in parallel (default 4)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.dataset_conversion.convert import convert
    from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, preview
    from nnunetv2_levit.dataset_conversion.converters import CONVERTERS, converter_named, listing

    if arguments.list:
        print(listing())
        return
    if arguments.name is None:
        raise UserError(f"convert needs the name of a converter: give one of {', '.join(CONVERTERS)}")
    converter = converter_named(arguments.name)
    if arguments.input is None or arguments.dataset is None:
        raise UserError(f"convert {arguments.name} needs -i (the dataset's folder) and -d (the dataset id)")
    asked = {
        "source": arguments.input,
        "dataset_id": arguments.dataset,
        "splits": arguments.splits,
        "test_split": arguments.test_split,
        "organs": arguments.organs,
        "task": arguments.task,
        "spacing": None if arguments.spacing is None else tuple(arguments.spacing),
        "fix_geometry": arguments.fix_geometry,
        "keep_copies": arguments.keep_copies,
        "overwrite": arguments.overwrite,
        "workers": arguments.workers,
        "progress": True,
    }
    if arguments.dry_run:
        print(preview(converter, ConversionRequest(**asked)))
        return
    done = convert(arguments.name, **asked)
    print(
        f"{done.folder} is complete; next: "
        f"nnUNetv2_plan_and_preprocess -d {arguments.dataset} -c 2d --verify_dataset_integrity"
    )
    for note in done.notes:
        print(f"note: {note}")
