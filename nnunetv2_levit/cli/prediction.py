"""Predicting with a trained model."""

import argparse
import os
import sys
from pathlib import Path

from nnunetv2_levit.cli.registration import AddCommand
from nnunetv2_levit.errors import UserError

SOME_CASES_FAILED = 1


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


def _workers(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 3


def _model(arguments: argparse.Namespace) -> Path:
    from nnunetv2_levit.nnunet.model_folder import trained_model_folder

    if arguments.m is not None:
        if arguments.d is not None or arguments.c is not None:
            raise UserError("-m names the model folder by itself: leave out -d and -c, or -m")
        return arguments.m
    if arguments.d is None or arguments.c is None:
        raise UserError("predict needs a model: -d and -c (and -tr, -p) in nnUNet_results, or its folder with -m")
    return trained_model_folder(dataset=arguments.d, trainer=arguments.tr, plans=arguments.p, configuration=arguments.c)


def _predict(arguments: argparse.Namespace) -> None:
    model = _model(arguments)

    import torch

    from nnunetv2_levit.inference.pipeline import FailedCasesError
    from nnunetv2_levit.inference.predict_folder import Settings, predict_folder

    settings = Settings(
        folds=arguments.f,
        checkpoint=arguments.chk,
        step_size=arguments.step_size,
        mirroring=not arguments.disable_tta,
        save_probabilities=arguments.save_probabilities,
        continue_prediction=arguments.continue_prediction,
        preprocessing_workers=arguments.npp,
        exporting_workers=arguments.nps,
        previous_stage=arguments.prev_stage_predictions,
        parts=arguments.num_parts,
        part=arguments.part_id,
        device=arguments.device,
        results_on_device=not arguments.not_on_device,
        progress_bar=not arguments.disable_progress_bar,
        verbose=arguments.verbose,
        accumulator=torch.float32 if arguments.fp32_sums else torch.half,
        backend=arguments.backend,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    try:
        predict_folder(model=model, source=arguments.i, output=arguments.o, settings=settings)
    except FailedCasesError as failed:
        print(f"error: {failed}; mend them and run again with --continue_prediction", file=sys.stderr, flush=True)
        raise SystemExit(SOME_CASES_FAILED) from None
    print(f"the segmentations are in {arguments.o}")


def register(command: AddCommand) -> None:
    sub = command("predict", _predict, "segment a folder of images: nnUNetv2_predict, batched for 2D configurations")
    sub.epilog = (
        "Exit code: 0 when all cases are done, 1 when some could not be read, predicted or written (they are named, "
        "the others are done), 2 when the command can't be carried out at all."
    )
    sub.add_argument("-i", type=Path, required=True, metavar="FOLDER", help="images, named CASE_0000.nii.gz and so on")
    sub.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="folder to write to, made if needed")
    sub.add_argument("-m", type=Path, metavar="FOLDER", help="a trained model folder, instead of -d, -p, -tr and -c")
    sub.add_argument("-d", metavar="DATASET", help="dataset id or name")
    sub.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default nnUNetPlans)")
    sub.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default nnUNetTrainer)")
    sub.add_argument("-c", metavar="CONFIGURATION", help="configuration, such as 2d")
    sub.add_argument("-f", nargs="+", type=fold, default=(0, 1, 2, 3, 4), metavar="FOLD", help="default 0 1 2 3 4")
    sub.add_argument("-chk", default="checkpoint_final.pth", metavar="FILE", help="default checkpoint_final.pth")
    sub.add_argument("-step_size", type=float, default=0.5, help="of the sliding window, in patches (default 0.5)")
    sub.add_argument("--disable_tta", action="store_true", help="no mirrored copies: faster, less accurate")
    sub.add_argument("--save_probabilities", action="store_true", help="also write the probabilities as .npz")
    sub.add_argument("--continue_prediction", "--c", action="store_true", help="predict only what is missing in -o")
    sub.add_argument("-npp", type=int, default=_workers("nnUNet_npp"), help="processes that preprocess (default 3)")
    sub.add_argument("-nps", type=int, default=_workers("nnUNet_nps"), help="processes that export (default 3)")
    sub.add_argument("-prev_stage_predictions", type=Path, metavar="FOLDER", help="for the second stage of a cascade")
    sub.add_argument("-num_parts", type=int, default=1, help="into how many calls the cases are divided (default 1)")
    sub.add_argument("-part_id", type=int, default=0, help="which of these this is, counted from 0")
    sub.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="default cuda")
    sub.add_argument("--not_on_device", action="store_true", help="keep results in the computer's memory")
    sub.add_argument("--disable_progress_bar", action="store_true")
    sub.add_argument("--verbose", action="store_true")
    sub.add_argument(
        "--fp32_sums",
        action="store_true",
        help="add windows and folds in fp32 where nnU-Net does it in fp16 (not a flag of nnUNetv2_predict)",
    )
    sub.add_argument(
        "--backend",
        choices=["torch", "onnx"],
        default="torch",
        help="onnx computes 2D configurations by ONNX Runtime, with -device cpu (not a flag of nnUNetv2_predict)",
    )
    add_trust_flag(sub)
