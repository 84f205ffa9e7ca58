"""``nnunetv2_levit evaluate``."""

import argparse
from pathlib import Path

from nnunetv2_levit.errors import UserError

HELP = "DSC, IoU, HD95, HD, ASD, NSD and volumes of predictions, case by case"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--predictions", type=Path, help="folder of predicted labels")
    parser.add_argument("-g", "--ground-truth", type=Path, help="folder of true labels (with -m: found by itself)")
    parser.add_argument("-m", "--model", type=Path, help="trained-model folder: its folds' validations, pooled")
    parser.add_argument("-f", "--folds", nargs="+", help="folds of -m (default: all that were validated)")
    parser.add_argument("-d", "--dataset", type=int, help="nnU-Net dataset id, for the structures' names")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: 'evaluation' in the input)")
    parser.add_argument("--name", help="the model's name in tables (default: the folder's)")
    parser.add_argument("--tolerance", type=float, default=2.0, help="of NSD, in mm or pixels (default 2)")
    parser.add_argument(
        "--protocol", help="also a paper's own figures: transunet, levit-unet, unet2022-em, isic or polyp"
    )
    parser.add_argument(
        "--partial", action="store_true", help="the predicted cases only, though more have ground truth"
    )
    parser.add_argument("--patient", help="regular expression; its first group is the patient of a case")
    parser.add_argument("-w", "--workers", type=int, default=4, help="processes for many cases (default 4)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.evaluation.evaluate import evaluate
    from nnunetv2_levit.nnunet.environment import dataset_folder
    from nnunetv2_levit.tables import evaluation_markdown

    given = arguments.model or arguments.predictions
    if given is None:
        raise UserError("give predictions and ground truth (-p and -g), or a trained-model folder (-m)")
    output = arguments.output or given / "evaluation"
    dataset = None
    if arguments.dataset is not None:
        dataset = dataset_folder("nnUNet_raw", arguments.dataset, advice="check -d, or convert the dataset first")
    result = evaluate(
        predictions=arguments.predictions,
        truth=arguments.ground_truth,
        model=arguments.model,
        folds=arguments.folds,
        dataset=dataset,
        name=arguments.name,
        tolerance=arguments.tolerance,
        protocol=arguments.protocol,
        partial=arguments.partial,
        patient_pattern=arguments.patient,
        workers=arguments.workers,
        output=output,
        progress=True,
    )
    print(evaluation_markdown(result))
    print(f"{output / 'evaluation.json'}, .md and .csv beside it")
