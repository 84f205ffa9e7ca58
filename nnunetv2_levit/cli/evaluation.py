"""What trained models are worth."""

import argparse
import os
from pathlib import Path

from nnunetv2_levit.cli.registration import AddCommand
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import check_writable


def _named(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` in two."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UserError(f"{text!r} should be NAME=VALUE")
    return name, value


def _distinct(pairs: list[tuple[str, str]]) -> dict[str, str]:
    for name, _ in pairs:
        if sum(other == name for other, _ in pairs) > 1:
            raise UserError(f"--network names {name!r} twice: give one network for each result")
    return dict(pairs)


def _result(text: str) -> tuple[str, list[Path]]:
    """``[NAME=]PATH[,PATH…]``: the name (the path's last part where there is none) and the results."""
    if os.path.exists(text):  # noqa: PTH110 (pathlib's fails for long names); a path with "=" or "," in it
        name, equals, parts = "", "", [text]
    else:
        name, equals, value = text.partition("=")
        parts = (value if equals else text).split(",")
    if (equals and not name.strip()) or not all(parts):
        raise UserError(f"{text!r} should be RESULT or NAME=RESULT: a folder or file that `evaluate` wrote")
    paths = [Path(part) for part in parts]
    if not equals:
        name = paths[0].resolve().name if paths[0].suffix != ".json" else paths[0].resolve().parent.name
    return name, paths


def _evaluate(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.evaluate import Request, evaluate
    from nnunetv2_levit.evaluation.stored import write_evaluation
    from nnunetv2_levit.nnunet.environment import dataset_folder
    from nnunetv2_levit.tables import evaluation_markdown

    given = arguments.model or arguments.predictions
    if given is None:
        raise UserError("give predictions and ground truth (-p and -g), or a trained-model folder (-m)")
    if arguments.model is not None and arguments.predictions is not None:
        raise UserError("-m takes its folds' validations and -p a folder of predictions: give one of them")
    folder = arguments.output or given / "evaluation"
    check_writable(folder, folder=True)
    dataset = None
    if arguments.dataset is not None:
        dataset = dataset_folder("nnUNet_raw", arguments.dataset, advice="check -d, or convert the dataset first")
    result = evaluate(
        Request(
            predictions=arguments.predictions,
            truth=arguments.ground_truth,
            model=arguments.model,
            folds=None if arguments.folds is None else tuple(arguments.folds),
            dataset=dataset,
            name=arguments.name,
            tolerance=arguments.tolerance,
            protocol=arguments.protocol,
            partial=arguments.partial,
            patient_pattern=arguments.patient,
            workers=arguments.workers,
        )
    )
    write_evaluation(result, folder)
    print(evaluation_markdown(result))
    print(f"{folder / 'evaluation.json'}, .md and .csv beside it")


def _compare(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.compare import compare, write_comparison
    from nnunetv2_levit.tables import comparison_markdown

    check_writable(arguments.output, folder=True)
    result = compare([_result(text) for text in arguments.results])
    write_comparison(result, arguments.output)
    print(comparison_markdown(result))
    print(f"{arguments.output / 'comparison.json'}, .md, .csv and .png beside it")


def _report(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.report import Request, write_report

    evaluations = []
    for text in arguments.results:
        name, paths = _result(text)
        if len(paths) > 1:
            raise UserError(f"{text!r} names several results: a report takes one for each model (compare pools them)")
        evaluations.append((name, paths[0]))
    page = write_report(
        Request(
            evaluations=evaluations,
            output=arguments.output,
            images=arguments.images,
            curves=arguments.curves or (),
            benchmark=arguments.benchmark,
            networks=_distinct([_named(text) for text in arguments.network or ()]),
            paper_dataset=arguments.paper_dataset,
        )
    )
    print(f"{page}, and its tables and pictures beside it")


def _curves(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.training_curves import write_curves

    for run in write_curves(arguments.folders, arguments.output):
        last = run["epochs"][-1]
        dice = ", ".join("-" if value is None else f"{value:.3f}" for value in last["pseudo_dice"])
        print(f"{run['run']}, {run['fold']}: {len(run['epochs'])} epochs, pseudo Dice {dice} in the last")
    print(f"{arguments.output}, {arguments.output.with_suffix('.png')}")


def register(command: AddCommand) -> None:
    """evaluate, compare, report and curves."""
    sub = command("evaluate", _evaluate, "DSC, IoU, HD95, HD, ASD, NSD and volumes of predictions, case by case")
    sub.add_argument("-p", "--predictions", type=Path, help="folder of predicted labels")
    sub.add_argument("-g", "--ground-truth", type=Path, help="folder of true labels (with -m: found by itself)")
    sub.add_argument("-m", "--model", type=Path, help="trained-model folder: its folds' validations, pooled")
    sub.add_argument("-f", "--folds", nargs="+", help="folds of -m (default: all that were validated)")
    sub.add_argument("-d", "--dataset", type=int, help="nnU-Net dataset id, for the structures' names")
    sub.add_argument("-o", "--output", type=Path, help="folder to write to (default: 'evaluation' in the input)")
    sub.add_argument("--name", help="the model's name in tables (default: the folder's)")
    sub.add_argument("--tolerance", type=float, default=2.0, help="of NSD, in mm or pixels (default 2)")
    sub.add_argument("--protocol", help="also a paper's own figures: transunet, levit-unet, unet2022-em, isic or polyp")
    sub.add_argument("--partial", action="store_true", help="the predicted cases only, though more have ground truth")
    sub.add_argument("--patient", help="regular expression; its first group is the patient of a case")
    sub.add_argument("-w", "--workers", type=int, default=4, help="processes for many cases (default 4)")

    sub = command("compare", _compare, "paired differences of models from the first, with intervals and tests")
    sub.add_argument(
        "results", nargs="+", metavar="[NAME=]RESULT[,RESULT…]", help="what evaluate wrote; several: seeds or folds"
    )
    sub.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")

    sub = command("report", _report, "an HTML page of evaluations, the papers' rows, cases and curves")
    sub.add_argument(
        "results", nargs="+", metavar="[NAME=]RESULT", help="what evaluate wrote; the first is compared with"
    )
    sub.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    sub.add_argument("--images", type=Path, help="folder of the evaluated images, to show worst, median and best case")
    sub.add_argument("--curves", type=Path, nargs="+", help="folders of trained folds, for their training curves")
    sub.add_argument("--benchmark", type=Path, help="JSON of the benchmark command, for speed against accuracy")
    sub.add_argument("--network", nargs="+", metavar="NAME=NETWORK", help="the benchmark's network of a result's NAME")
    sub.add_argument("--paper-dataset", help="the dataset's name in the papers (default: that of the results)")

    sub = command("curves", _curves, "training curves of one or several runs, from nnU-Net's logs")
    sub.add_argument("folders", type=Path, nargs="+", help="folders of trained folds, such as .../fold_0")
    sub.add_argument("-o", "--output", type=Path, required=True, help="JSON file; a PNG is written beside it")
