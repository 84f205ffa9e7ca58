"""The pocket benchmark's data, plans and trainers; `pocket_benchmark.py prepare` makes them ready."""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from commands import program

DATASET, PLANS, CONFIGURATION = 27, "pocket", "2d_112"
SPACING, PATCH, BATCH = (10.0, 2.5, 2.5), (112, 112), 8
CHOOSE_ON, REPORT_ON = (1, 2), (0, 3, 4)  # folds
RESULTS = Path(os.environ.get("POCKET_RESULTS") or Path(__file__).resolve().parents[1] / "results" / "pocket")
REFERENCE = "HybridRecipeTrainer_bf16"
os.environ.setdefault("nnUNet_n_proc_DA", "1")


def folder_of(variable: str) -> Path:
    from nnunetv2_levit.nnunet.environment import dataset_folder

    return dataset_folder(variable, DATASET, advice="run `prepare` first")


def run_name(trainer: str, length: str, fold: int, seed: int) -> str:
    return f"{trainer}_{length}_f{fold}_s{seed}"


def evaluation_file(results: Path, run: str) -> Path:
    """Where the evaluation of a final run is kept; from a lent GPU no file comes back with an @ in its name."""
    return results / "final" / f"{run.replace('@', '-')}.json"


def architecture_for_patch(planner_name: str) -> dict:
    """The network that one of nnU-Net's planners gives to images of the benchmark's patch size."""
    import numpy as np
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    planners = {"default": ExperimentPlanner, "resenc": residual_encoder_unet_planners.nnUNetPlannerResEncM}
    planner = planners[planner_name](DATASET, plans_name=PLANS, overwrite_target_spacing=list(SPACING))
    planned = planner.get_plans_for_configuration(
        np.array(SPACING[1:]), np.array(PATCH, dtype=float), f"{PLANS}_2d", approximate_n_voxels_dataset=1e9, _cache={}
    )
    if tuple(planned["patch_size"]) != PATCH:
        sys.exit(f"nnU-Net plans a patch of {planned['patch_size']}, not {PATCH}")
    return json.loads(json.dumps(planned["architecture"], default=lambda value: np.asarray(value).tolist()))


def prepare(arguments: argparse.Namespace) -> None:
    """Convert, plan at the coarse spacing, preprocess, and add the configurations of the benchmark."""
    from nnunetv2_levit.dataset_conversion.convert import convert
    from nnunetv2_levit.files import read_json, write_json
    from nnunetv2_levit.nnunet.environment import nnunet_folder

    raw, preprocessed = nnunet_folder("nnUNet_raw"), nnunet_folder("nnUNet_preprocessed")
    if not list(raw.glob(f"Dataset{DATASET:03d}_*")):
        convert("acdc", source=arguments.acdc, dataset_id=DATASET)
    plans_file = preprocessed / folder_of("nnUNet_raw").name / f"{PLANS}.json"
    if not plans_file.is_file():
        words = ("nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "-overwrite_plans_name", PLANS)
        words = (*words, "-overwrite_target_spacing", *SPACING, "-np", 2, "-npfp", 2)
        subprocess.run(program(*words), check=True)
    plans = read_json(plans_file, what="the plans")
    shared = {"inherits_from": "2d", "patch_size": list(PATCH), "batch_size": BATCH}
    for name, planner in ((CONFIGURATION, "default"), (f"{CONFIGURATION}_resenc", "resenc")):
        plans["configurations"][name] = {**shared, "architecture": architecture_for_patch(planner)}
    write_json(plans_file, plans, indent=4, allow_nan=True)
    print(f"{plans_file} has the configurations {CONFIGURATION} and {CONFIGURATION}_resenc")


def make_trainer(name: str, configuration: str, fold: int, device: str, *, plans: str = PLANS, resume: bool = False):
    """A trainer as nnU-Net makes it, not yet initialised."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(len(os.sched_getaffinity(0)) if device == "cpu" else 1)
    return get_trainer_from_args(
        str(DATASET), configuration, fold, name, plans, continue_training=resume, device=torch.device(device)
    )


def end_loaders(trainer) -> None:
    """End the processes of a trainer's data loaders."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        getattr(loader, "_finish", lambda: None)()


def version_of(package: str) -> str | None:
    """A package's version, None where it is used without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")


def circumstances(device: str) -> dict:
    import torch

    import nnunetv2_levit

    kind = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    if device == "cpu" and Path("/proc/cpuinfo").is_file():
        lines = [line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")]
        kind = lines[0].partition(":")[2].strip() if lines else kind
    return {
        "device": f"{kind}, {os.cpu_count()} cores",
        "versions": {name: version_of(name) for name in ("torch", "nnunetv2")}
        | {"nnunetv2_levit": nnunetv2_levit.__version__},
        "date": now(),
    }
