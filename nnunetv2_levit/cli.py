"""The command ``nnunetv2_levit``. Heavy modules are imported inside the subcommand that needs them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nnunetv2_levit
from nnunetv2_levit.errors import UserError, exit_on_user_error

# subcommands that hand everything to nnU-Net, with the trainers made known to it
PASSED_THROUGH = {
    "train": "nnUNetv2_train",
    "predict": "nnUNetv2_predict",
    "plan": "nnUNetv2_plan_and_preprocess",
}


def _run_nnunet(command: str, arguments: Sequence[str]) -> None:
    from importlib.metadata import entry_points

    from nnunetv2_levit.environment import set_up_process

    set_up_process()
    (entry,) = entry_points(group="console_scripts", name=PASSED_THROUGH[command])
    sys.argv = [PASSED_THROUGH[command], *arguments]
    entry.load()()


def _env(_: argparse.Namespace) -> None:
    from nnunetv2_levit.environment import shell_lines

    print(shell_lines())


def _enable(_: argparse.Namespace) -> None:
    from nnunetv2_levit.environment import enable

    print(f"nnU-Net now finds the trainers in this Python environment, through {enable()}")


def _disable(_: argparse.Namespace) -> None:
    from nnunetv2_levit.environment import disable

    print("disabled" if disable() else "there was nothing to disable")


def _trainers(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.trainers.listing import as_json, as_text

    print(as_json() if arguments.json else as_text())


def _convert(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.dataset_conversion.converter import Request, convert, preview
    from nnunetv2_levit.dataset_conversion.converters import CONVERTERS, listing
    from nnunetv2_levit.dataset_conversion.raw_dataset import conversion_notes, stale_preprocessed_splits

    if arguments.list:
        print(listing())
        return
    if arguments.name not in CONVERTERS:
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
    from nnunetv2_levit.configurations import add_configuration

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


def _demo(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.demo import run_demo

    run_demo(output=arguments.output, data=arguments.data)


def _benchmark(arguments: argparse.Namespace) -> None:
    import json

    from nnunetv2_levit.benchmark.measure import as_markdown, run
    from nnunetv2_levit.network_architectures import REGISTRY

    result = run(
        networks=arguments.networks or list(REGISTRY),
        patch_sizes=[(side, side) for side in arguments.patch],
        batch_size=arguments.batch,
        device=arguments.device,
        repetitions=arguments.repetitions,
    )
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(as_markdown(result))


def _curves(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.training_curves import report

    for run in report(arguments.folders, arguments.output):
        last = run["epochs"][-1]
        dice = ", ".join("-" if value is None else f"{value:.3f}" for value in last["pseudo_dice"])
        print(f"{run['run']}, {run['fold']}: {len(run['epochs'])} epochs, pseudo Dice {dice} in the last")
    print(f"{arguments.output}, {arguments.output.with_suffix('.png')}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands except those passed through to nnU-Net."""
    parser = argparse.ArgumentParser(prog="nnunetv2_levit", description="Transformer-CNN hybrids for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"nnunetv2_levit {nnunetv2_levit.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    command("env", _env, "print the shell line that makes nnU-Net find the trainers")
    command("enable", _enable, "make nnU-Net find the trainers in this Python environment for good")
    command("disable", _disable, "undo enable")
    sub = command("trainers", _trainers, "list trainer families, sizes and options")
    sub.add_argument("--json", action="store_true", help="as JSON")
    for name, target in PASSED_THROUGH.items():
        commands.add_parser(name, help=f"{target} with the trainers made known (takes its flags)", add_help=False)

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

    sub = command("benchmark", _benchmark, "measure parameters, multiply-adds, time and memory of the networks")
    sub.add_argument("--networks", nargs="+", metavar="NAME", help="registered networks (default: all)")
    sub.add_argument("--patch", type=int, nargs="+", default=[224], metavar="SIDE", help="square patches (default 224)")
    sub.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    sub.add_argument("--repetitions", type=int, default=5, help="timed forward passes (default 5)")
    sub.add_argument("-o", "--output", type=Path, help="also write the result as JSON")

    sub = command("curves", _curves, "training curves of one or several runs, from nnU-Net's logs")
    sub.add_argument("folders", type=Path, nargs="+", help="folders of trained folds, such as .../fold_0")
    sub.add_argument("-o", "--output", type=Path, required=True, help="JSON file; a PNG is written beside it")

    sub = command("demo", _demo, "run the whole chain on the CPU, from data to a scored prediction")
    sub.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for everything it writes")
    sub.add_argument("--data", type=Path, help="ACDC as released (default: a synthetic phantom)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends with one sentence and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with exit_on_user_error():
        if arguments and arguments[0] in PASSED_THROUGH:
            _run_nnunet(arguments[0], arguments[1:])
            return
        parsed = build_parser().parse_args(arguments)
        parsed.function(parsed)


if __name__ == "__main__":
    main()
