"""Turning a trained model into another one."""

import argparse
from pathlib import Path

from nnunetv2_levit.cli.prediction import add_trust_flag, fold
from nnunetv2_levit.cli.registration import AddCommand


def _export(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.inference.export import export_model

    facts = export_model(
        model=arguments.model,
        output=arguments.output,
        fold=arguments.fold,
        checkpoint=arguments.checkpoint,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    print(
        f"{arguments.output}: {facts['trainer']}, fold {facts['fold']}; largest difference from torch "
        f"{facts['max_abs_difference']:.1e} on {facts['checked_on']}"
    )


def _register_export(command: AddCommand) -> None:
    sub = command("export", _export, "write one fold of a trained 2D model as ONNX, checked against torch")
    sub.add_argument("-m", "--model", type=Path, required=True, help="trained model folder (TRAINER__PLANS__CONFIG)")
    sub.add_argument("-o", "--output", type=Path, required=True, help="file to write, model.onnx")
    sub.add_argument("-f", "--fold", type=fold, default=0, help="fold to export (default 0), or all")
    sub.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    add_trust_flag(sub)


def _truncate(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.analysis.truncation import as_text, truncate

    report = truncate(
        arguments.model,
        blocks=arguments.blocks,
        output=arguments.output,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    print(as_text(report, arguments.output))


def _register_truncate(command: AddCommand) -> None:
    sub = command("truncate", _truncate, "make a model with fewer transformer blocks of a trained one")
    sub.add_argument("-m", "--model", type=Path, required=True, help="trained-model folder, of any number of folds")
    sub.add_argument("--blocks", type=int, required=True, help="transformer blocks to keep (in each stage, if any)")
    sub.add_argument("-o", "--output", type=Path, required=True, help="trained-model folder to write")
    sub.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default checkpoint_final.pth")
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where throughput is measured")
    add_trust_flag(sub)


def register(command: AddCommand) -> None:
    _register_export(command)
    _register_truncate(command)
