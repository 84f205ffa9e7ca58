"""`nnunetv2_levit predict` against `nnUNetv2_predict`, same model and cases, in turn in one run.

    python docs/lab/experiments/prediction_speed.py ACDC_FOLDER -o docs/lab/results/prediction_cpu.json

ACDC_FOLDER is ACDC as released. Its first patients are converted and planned; the models have nnU-Net's plan for them
and random weights, on which time does not depend. Measured are the whole commands, and within one process the
computing alone (logits of preprocessed cases, results back in the computer's memory). With `--fast`, only the
computing is measured.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import SimpleITK as sitk
import torch
from commands import command_line, program
from tqdm import tqdm

from nnunetv2_levit.benchmark.steps import cudnn_autotuning
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.inference.batching import BatchRunner, keep_freed_memory
from nnunetv2_levit.nnunet.environment import set_up_process

DATASET = 27


def seconds_of(name: str, *arguments: object) -> float:
    """Seconds that a console script takes."""
    start = perf_counter()
    done = subprocess.run(program(name, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout)
    return perf_counter() - start


def prepare(acdc: Path, root: Path, cases: int, slices: int | None) -> tuple[Path, Path]:
    """Raw dataset's images, the middle ``slices`` of each, and the folder with the plans."""
    source = root / "source" / "training"
    source.mkdir(parents=True)
    for patient in sorted(path for path in (acdc / "training").iterdir() if path.is_dir())[: max(5, (cases + 1) // 2)]:
        (source / patient.name).symlink_to(patient.resolve(), target_is_directory=True)
    raw = convert("acdc", source=source.parent, dataset_id=DATASET).folder
    seconds_of("nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "--no_pp", "-npfp", "2")
    images = root / "images"
    images.mkdir()
    for path in sorted((raw / "imagesTr").iterdir())[:cases]:
        if slices is None:
            shutil.copy(path, images)
            continue
        volume = sitk.ReadImage(str(path))
        first = max(0, (volume.GetDepth() - slices) // 2)
        sitk.WriteImage(volume[:, :, first : first + slices], str(images / path.name))
    return images, root / "preprocessed" / raw.name


def untrained_model(planned: Path, folder: Path, trainer_name: str, folds: int) -> Path:
    """A model folder of random weights in nnU-Net's layout."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = (json.loads((planned / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    manager = PlansManager(plans)
    configuration = manager.get_configuration("2d")
    trainer = recursive_find_trainer_class_by_name(trainer_name)
    for fold in range(folds):
        torch.manual_seed(fold)
        network = trainer.build_network_architecture(
            manager,
            configuration,
            determine_num_input_channels(manager, configuration, dataset),
            manager.get_label_manager(dataset).num_segmentation_heads,
            False,
        )
        (folder / f"fold_{fold}").mkdir(parents=True)
        checkpoint = {
            "network_weights": network.state_dict(),
            "init_args": {"plans": plans, "configuration": "2d", "fold": fold, "dataset_json": dataset},
            "trainer_name": trainer_name,
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        (folder / name).write_text(json.dumps(content))
    return folder


def time_commands(model: Path, images: Path, root: Path, settings: argparse.Namespace) -> dict[str, list[float]]:
    commands = {"stock": ["nnUNetv2_predict_from_modelfolder"], "batched": ["nnunetv2_levit", "predict"]}
    seconds: dict[str, list[float]] = {kind: [] for kind in commands}
    common = ("-i", images, "-m", model, "-device", settings.device, "-f", *range(settings.folds))
    for _ in tqdm(range(settings.repetitions), desc=f"commands, {model.name}"):
        for kind, words in commands.items():
            seconds[kind].append(seconds_of(*words, *common, "-o", root / f"{model.name}_{kind}"))
    return seconds


def same_labels(root: Path, model: Path) -> float:
    """Share of voxels with the same label in both outputs."""
    same = total = 0
    for path in (root / f"{model.name}_stock").glob("*.nii.gz"):
        first, second = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(root / f"{model.name}_{kind}" / path.name)))
            for kind in ("stock", "batched")
        )
        same, total = same + int((first == second).sum()), total + first.size
    return same / total


def time_computing(model: Path, images: Path, settings: argparse.Namespace) -> tuple[dict[str, list[float]], dict]:
    """Seconds for the logits of all cases, in turn; and what the batched predictor chose."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunetv2_levit.inference.predictor import BatchedPredictor

    device, folds = torch.device(settings.device), list(range(settings.folds))
    predictors: dict[str, nnUNetPredictor] = {"stock": nnUNetPredictor(device=device, allow_tqdm=False)}
    for size in settings.batch:
        name = "batched" if size is None else f"batches of {size}"
        predictors[name] = BatchedPredictor(device=device, allow_tqdm=False)
        predictors[name].runner = BatchRunner(device, size)
    autotuned = {}
    for name, predictor in predictors.items():
        torch.backends.cudnn.benchmark = True  # as nnU-Net's constructor sets it, for CUDA; ours switches it off again
        predictor.initialize_from_trained_model_folder(str(model), folds)
        autotuned[name] = torch.backends.cudnn.benchmark
    stock = predictors["stock"]
    managers = stock.plans_manager, stock.configuration_manager, stock.dataset_json
    preprocessor = stock.configuration_manager.preprocessor_class(verbose=False)
    volumes = [
        torch.from_numpy(preprocessor.run_case([str(path)], None, *managers)[0]) for path in sorted(images.iterdir())
    ]
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    logits = {}
    for name, predictor in predictors.items():
        with cudnn_autotuning(autotuned[name]):
            logits[name] = predictor.predict_logits_from_preprocessed_data(volumes[0])
    for _ in tqdm(range(settings.repetitions), desc=f"computing, {model.name}"):
        for name, predictor in predictors.items():
            start = perf_counter()
            with cudnn_autotuning(autotuned[name]):
                for volume in volumes:
                    predictor.predict_logits_from_preprocessed_data(volume)
            seconds[name].append(perf_counter() - start)
    name, last = list(predictors.items())[-1]
    difference = (logits["stock"].float() - logits[name].float()).abs().max()
    facts = {
        "patch_size": list(stock.configuration_manager.patch_size),
        "slices": sum(int(volume.shape[1]) for volume in volumes),
        "batch_size": last.runner.batch_size,
        "cudnn_autotuning": autotuned,
        "largest_difference_of_logits": float(difference),
        "largest_logit": float(logits["stock"].float().abs().max()),
    }
    return seconds, facts


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times faster than stock each is."""
    return {name: round(median(seconds["stock"]) / median(times), 2) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("acdc", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--trainers", nargs="+", default=["nnUNetTrainer", "LeViTUNetTrainer_128s"])
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--slices", type=int, help="the middle slices of each case only")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[None], help="images at once, where the predictor shall not choose"
    )
    parser.add_argument("--keep-memory", action="store_true", help="as the command does: freed memory stays with us")
    parser.add_argument("--fast", action="store_true", help="the computing only, not the whole commands")
    settings = parser.parse_args()
    set_up_process()
    if settings.keep_memory and not keep_freed_memory():
        sys.exit("this system can't keep freed memory")
    if settings.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())

    result = {
        "command": command_line({str(settings.acdc): "ACDC_FOLDER"}),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else f"{torch.get_num_threads()} CPU cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cases": settings.cases,
        "folds": settings.folds,
        "rows": [],
    }

    def keep() -> None:
        if settings.output is not None:
            settings.output.write_text(json.dumps(result, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = str(root / name)
            (root / name).mkdir()
        images, planned = prepare(settings.acdc, root, settings.cases, settings.slices)
        for trainer in settings.trainers:
            model = untrained_model(planned, root / trainer, trainer, settings.folds)
            computing, facts = time_computing(model, images, settings)
            row = {"trainer": trainer, **facts, "computing_ratios": ratios(computing), "computing_seconds": computing}
            result["rows"].append(row)
            keep()  # should the rest be stopped
            if not settings.fast:
                commands = time_commands(model, images, root, settings)
                row |= {"command_ratios": ratios(commands), "command_seconds": commands}
                row["voxels_with_the_same_label"] = same_labels(root, model)
                keep()
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
