"""``nnunetv2_levit predict``."""

import argparse
import os
import sys
from pathlib import Path

from nnunetv2_levit.cli.model_flags import add_trust_flag, fold

HELP = "segment a folder of images: nnUNetv2_predict, batched for 2D configurations"
SOME_CASES_FAILED = 1


def _workers(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit code: 0 when all cases are done, 1 when some could not be read, predicted or written (they are named, "
        "the others are done), 2 when the command can't be carried out at all."
    )
    parser.add_argument(
        "-i", type=Path, required=True, metavar="FOLDER", help="images, named CASE_0000.nii.gz and so on"
    )
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="folder to write to, made if needed")
    parser.add_argument("-m", type=Path, metavar="FOLDER", help="a trained model folder, instead of -d, -p, -tr and -c")
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default nnUNetPlans)")
    parser.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default nnUNetTrainer)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration, such as 2d")
    parser.add_argument("-f", nargs="+", type=fold, default=(0, 1, 2, 3, 4), metavar="FOLD", help="default 0 1 2 3 4")
    parser.add_argument("-chk", default="checkpoint_final.pth", metavar="FILE", help="default checkpoint_final.pth")
    parser.add_argument("-step_size", type=float, default=0.5, help="of the sliding window, in patches (default 0.5)")
    parser.add_argument("--disable_tta", action="store_true", help="no mirrored copies: faster, less accurate")
    parser.add_argument("--save_probabilities", action="store_true", help="also write the probabilities as .npz")
    parser.add_argument("--continue_prediction", "--c", action="store_true", help="predict only what is missing in -o")
    parser.add_argument("-npp", type=int, default=_workers("nnUNet_npp"), help="processes that preprocess (default 3)")
    parser.add_argument("-nps", type=int, default=_workers("nnUNet_nps"), help="processes that export (default 3)")
    parser.add_argument(
        "-prev_stage_predictions", type=Path, metavar="FOLDER", help="for the second stage of a cascade"
    )
    parser.add_argument("-num_parts", type=int, default=1, help="into how many calls the cases are divided (default 1)")
    parser.add_argument("-part_id", type=int, default=0, help="which of these this is, counted from 0")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="default cuda")
    parser.add_argument("--not_on_device", action="store_true", help="keep results in the computer's memory")
    parser.add_argument("--disable_progress_bar", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument(
        "--fp32_sums",
        action="store_true",
        help="add windows and folds in fp32 where nnU-Net does it in fp16 (not a flag of nnUNetv2_predict)",
    )
    parser.add_argument(
        "--backend",
        choices=["torch", "onnx"],
        default="torch",
        help="onnx computes 2D configurations by ONNX Runtime, with -device cpu (not a flag of nnUNetv2_predict)",
    )
    add_trust_flag(parser)


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.inference.batching import keep_freed_memory
    from nnunetv2_levit.inference.pipeline import FailedCasesError, failure
    from nnunetv2_levit.inference.predict import predict

    if arguments.device == "cpu":
        keep_freed_memory()
    try:
        predict(
            model=arguments.m,
            dataset=arguments.d,
            trainer=arguments.tr,
            plans=arguments.p,
            configuration=arguments.c,
            images=arguments.i,
            output=arguments.o,
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
            fp32_sums=arguments.fp32_sums,
            backend=arguments.backend,
            trust_checkpoint=arguments.trust_checkpoint,
            progress=not arguments.disable_progress_bar,
            verbose=arguments.verbose,
        )
    except FailedCasesError as failed:
        if arguments.disable_progress_bar:  # otherwise each was named when it failed
            for case, reason in failed.reasons.items():
                print(failure(case, reason), file=sys.stderr)
        print(f"error: {failed}; mend them and run again with --continue_prediction", file=sys.stderr, flush=True)
        raise SystemExit(SOME_CASES_FAILED) from None
    print(f"the segmentations are in {arguments.o}")
