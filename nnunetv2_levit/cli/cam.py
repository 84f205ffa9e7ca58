"""``nnunetv2_levit cam``."""

import argparse

from nnunetv2_levit.cli.model_flags import add_analysis_flags, add_slice_flags

HELP = "class activation maps (Grad-CAM and its like) of any trained 2D model, nnU-Net's own included"
METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_analysis_flags(parser)
    add_slice_flags(parser, labels="true labels of the cases")
    parser.add_argument("--method", choices=METHODS, default="gradcam", help="default gradcam")
    parser.add_argument("--layer", nargs="+", default=(), metavar="NAME", help="modules (default: the coarsest map)")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.case_slices import SKIPPED
    from nnunetv2_levit.analysis.class_activation import PAGE, class_activation

    result = class_activation(
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
    if result["skipped"]:
        print(f"{SKIPPED}: {', '.join(result['skipped'])}")
    print(f"read {arguments.output / PAGE}")
