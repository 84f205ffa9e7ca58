"""``nnunetv2_levit cam``."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.model_flags import add_trust_flag, fold

HELP = "class activation maps (Grad-CAM and its like) of any trained 2D model, nnU-Net's own included"
METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", type=Path, required=True, help="trained-model folder")
    parser.add_argument(
        "-i", "--images", type=Path, required=True, metavar="CASE_OR_FOLDER",
        help="image of a case (any of its channels), or a folder of cases",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to, made if needed")
    parser.add_argument("-f", "--fold", type=fold, default=0, help="default 0")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="true labels of the cases")
    parser.add_argument(
        "--slice", type=int, metavar="N", help="of the image file, from 0 (default: the most structure)"
    )
    parser.add_argument("--method", choices=METHODS, default="gradcam", help="default gradcam")
    parser.add_argument("--layer", nargs="+", default=(), metavar="NAME", help="modules (default: the coarsest map)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default cpu")
    add_trust_flag(parser)


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.class_activation import PAGE, class_activation

    class_activation(
        arguments.model,
        images=arguments.images,
        output=arguments.output,
        fold=arguments.fold,
        labels=arguments.labels,
        slice_index=arguments.slice,
        method=arguments.method,
        layers=arguments.layer,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        trust_checkpoint=arguments.trust_checkpoint,
        progress=True,
    )
    print(f"read {arguments.output / PAGE}")
