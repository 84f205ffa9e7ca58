"""Converting, inspecting and configuring datasets."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.registration import AddCommand
from nnunetv2_levit.errors import UserError


def _convert(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.dataset_conversion.converter import Request, convert, preview
    from nnunetv2_levit.dataset_conversion.converters import CONVERTERS, listing
    from nnunetv2_levit.dataset_conversion.raw_dataset import conversion_notes, stale_preprocessed_splits

    if arguments.list:
        print(listing())
        return
    if arguments.name not in CONVERTERS:
        if arguments.name is None:
            raise UserError(f"convert needs the name of a converter: give one of {', '.join(CONVERTERS)}")
        raise UserError(f"there is no converter {arguments.name!r}: choose one of {', '.join(CONVERTERS)}")
    if arguments.input is None or arguments.dataset is None:
        raise UserError(f"convert {arguments.name} needs -i (the dataset's folder) and -d (the dataset id)")
    request = Request(
        source=arguments.input,
        dataset_id=arguments.dataset,
        splits=arguments.splits,
        test_split=arguments.test_split,
        organs=arguments.organs,
        task=arguments.task,
        spacing=None if arguments.spacing is None else tuple(arguments.spacing),
        fix_geometry=arguments.fix_geometry,
        keep_copies=arguments.keep_copies,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
    )
    if arguments.dry_run:
        print(preview(CONVERTERS[arguments.name], request))
        return
    target = convert(CONVERTERS[arguments.name], request)
    print(
        f"{target} is complete; next: "
        f"nnUNetv2_plan_and_preprocess -d {arguments.dataset} -c 2d --verify_dataset_integrity"
    )
    for note in conversion_notes(target):
        print(f"note: {note}")
    if (stale := stale_preprocessed_splits(target)) is not None:
        print(f"note: {stale} holds other splits, at which nnU-Net's planner stops: remove it before planning")


def _inspect(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.dataset_conversion.overview import inspect

    picture, rows = inspect(arguments.dataset, output=arguments.output, workers=arguments.workers)
    for row in rows:
        if row["outliers"]:
            print(f"{row['case']}: {', '.join(row['outliers'])}")
    marked = sum(bool(row["outliers"]) for row in rows)
    print(f"{len(rows)} cases, {marked} with outliers: {picture}, .md and .json beside it")


def _configure(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.configurations import add_configuration

    name, path, remark = add_configuration(
        dataset_id=arguments.dataset,
        base=arguments.base,
        patch_size=tuple(arguments.patch),
        batch_size=arguments.batch,
        name=arguments.name,
        plans_name=arguments.plans,
        overwrite=arguments.overwrite,
    )
    print(
        f"{path} has the configuration {name}; next: nnUNetv2_train {arguments.dataset} {name} 0 -tr LeViTUNetTrainer"
    )
    if remark:
        print(f"note: {remark}")


def register(command: AddCommand) -> None:
    sub = command("convert", _convert, "convert a published dataset to nnU-Net's raw format")
    sub.add_argument("name", nargs="?", metavar="NAME", help="acdc, synapse, …; --list shows all")
    sub.add_argument("--list", action="store_true", help="show all converters with their expected layout and splits")
    sub.add_argument("-i", "--input", type=Path, help="the dataset as released and unpacked")
    sub.add_argument("-d", "--dataset", type=int, help="nnU-Net dataset id, 1 to 999")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sub.add_argument(
        "--splits",
        default="crossval",
        help="crossval (5 folds by patient, the default), none, or a paper's (--list shows them)",
    )
    sub.add_argument("--test-split", help="synapse: transunet sets its 12 test cases aside as imagesTs and labelsTs")
    sub.add_argument("--organs", type=int, default=8, help="synapse: 8 (the papers', default) or 13")
    sub.add_argument("--task", help="msd without dataset.json: the prefix of the task's case names")
    sub.add_argument("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="mm, for sources that lost it")
    sub.add_argument("--fix-geometry", action="store_true", help="labels take the header of their image")
    sub.add_argument("--keep-copies", action="store_true", help="keep cases with the same image and label")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing dataset of this id")
    sub.add_argument("-w", "--workers", type=int, default=4, help="cases in parallel (default 4)")

    sub = command("inspect", _inspect, "a labelled slice of each case and a table with outliers marked")
    sub.add_argument("-d", "--dataset", type=int, required=True, help="nnU-Net dataset id")
    sub.add_argument("-o", "--output", type=Path, help="folder to write to (default: the raw dataset's)")
    sub.add_argument("-w", "--workers", type=int, default=4, help="cases in parallel (default 4)")

    sub = command("configure", _configure, "add a configuration with another patch size to a plans file")
    sub.add_argument("-d", "--dataset", type=int, required=True, help="nnU-Net dataset id")
    sub.add_argument("--from", dest="base", default="2d", help="2D configuration to inherit from (default 2d)")
    sub.add_argument("--patch", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help="in pixels")
    sub.add_argument("--batch", type=int, help="batch size (default: inherited)")
    sub.add_argument("--name", help="name of the configuration (default: <from>_p<height>x<width>)")
    sub.add_argument("-p", "--plans", default="nnUNetPlans", help="plans identifier (default nnUNetPlans)")
    sub.add_argument("--overwrite", action="store_true", help="replace a configuration of this name")
