"""``nnunetv2_levit plan``: nnUNetv2_plan_and_preprocess."""

from collections.abc import Sequence

from nnunetv2_levit.cli.passed_through import run_program

PROGRAM = "nnUNetv2_plan_and_preprocess"


def run(arguments: Sequence[str]) -> None:
    from nnunetv2_levit.nnunet.environment import set_up_process

    set_up_process()
    run_program(PROGRAM, arguments)
