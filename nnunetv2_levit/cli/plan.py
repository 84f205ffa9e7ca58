"""``nnunetv2_levit plan``: nnUNetv2_plan_and_preprocess, after a look at what can be known to be wrong."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_levit import schemas
from nnunetv2_levit.cli.arguments import plain_sentences
from nnunetv2_levit.cli.passed_through import run_program
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.environment import dataset_folder, nnunet_folder

PROGRAM = "nnUNetv2_plan_and_preprocess"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
MOST_PROCESSES = 1000


def _parser() -> argparse.ArgumentParser:
    """The flags of nnUNetv2_plan_and_preprocess that can be wrong; nnU-Net refuses what neither of us knows."""
    parser = argparse.ArgumentParser(prog="nnunetv2_levit plan", add_help=False, allow_abbrev=False)
    parser.add_argument("-d", type=int, nargs="+", required=True)
    parser.add_argument("-c", nargs="+", default=["2d"])
    parser.add_argument("-np", type=int, nargs="+", default=[1])
    parser.add_argument("-npfp", type=int, default=1)
    parser.add_argument("-gpu_memory_target", type=float)
    parser.add_argument("-overwrite_target_spacing", type=float, nargs="+")
    parser.add_argument("-overwrite_plans_name")
    for flag, default in CLASSES.items():
        parser.add_argument(f"-{flag}", default=default[0])
    return parser


# flag: nnU-Net's default, and where nnU-Net looks for a class of that name
CLASSES = {
    "fpe": ("DatasetFingerprintExtractor", "experiment_planning"),
    "pl": ("ExperimentPlanner", "experiment_planning"),
    "preprocessor_name": ("DefaultPreprocessor", "preprocessing"),
}


def _check_class(flag: str, name: str) -> None:
    default, package = CLASSES[flag]
    if name == default:
        return
    from nnunetv2_levit.nnunet.named_classes import has_class

    if not has_class(name, package=package):
        raise UserError(f"nnU-Net has no class {name!r} for -{flag}: leave it out for {default}")


def _check_numbers(arguments: argparse.Namespace) -> None:
    for flag in ("np", "npfp"):
        for number in [getattr(arguments, flag)] if flag == "npfp" else arguments.np:
            if not 1 <= number <= MOST_PROCESSES:
                raise UserError(f"-{flag} {number} is no number of processes: give 1 to {MOST_PROCESSES}")
    if len(arguments.np) not in (1, len(arguments.c)):
        raise UserError(
            f"-np has {len(arguments.np)} numbers for {len(arguments.c)} configurations: give one, or one each"
        )
    memory, spacing = arguments.gpu_memory_target, arguments.overwrite_target_spacing
    if memory is not None and not (math.isfinite(memory) and memory > 0):
        raise UserError(f"-gpu_memory_target {memory} is no size of a memory: give GB above 0")
    if spacing is not None and not (len(spacing) == 3 and all(math.isfinite(side) and side > 0 for side in spacing)):
        raise UserError(f"-overwrite_target_spacing {' '.join(map(str, spacing))} is not three lengths above 0 (mm)")
    name = arguments.overwrite_plans_name
    if name is not None and (Path(name).name != name or "\\" in name or "__" in name):
        raise UserError(f"-overwrite_plans_name {name!r} is no name of a file: leave out separators and '__'")


def _configurations_there(folder: Path) -> set[str]:
    """Configurations of the plans that the dataset has already; `configure` adds to them."""
    names: set[str] = set()
    for path in folder.glob("*Plans*.json"):
        plans = read_json(path, what="a plans file", schema=schemas.PLANS_TO_CONFIGURE)
        names |= set(plans["configurations"])
    return names


@plain_sentences()
def check_arguments(arguments: Sequence[str]) -> None:
    """Check the arguments of nnUNetv2_plan_and_preprocess.

    Raises:
        UserError: the planning can't be carried out; the sentence says what to mend.
    """
    if {"-h", "--help"} & set(arguments):
        return
    parsed, _ = _parser().parse_known_args(arguments)
    _check_numbers(parsed)
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    for dataset in parsed.d:
        raw = dataset_folder("nnUNet_raw", dataset, advice="check -d, or convert the dataset first")
        read_json(raw / "dataset.json", what="the dataset's description", schema=schemas.DATASET_WITH_IMAGES)
        known = {*CONFIGURATIONS, *_configurations_there(preprocessed / raw.name)}
        for name in parsed.c:
            if name not in known:  # nnU-Net would leave it out, and say so in the middle of its output
                raise UserError(
                    f"{raw.name} has no configuration {name!r} (-c): choose among {', '.join(sorted(known))}"
                )
    for flag in CLASSES:
        _check_class(flag, getattr(parsed, flag))


def run(arguments: Sequence[str]) -> None:
    from nnunetv2_levit.nnunet.environment import set_up_process

    set_up_process()
    check_arguments(arguments)
    run_program(PROGRAM, arguments)
