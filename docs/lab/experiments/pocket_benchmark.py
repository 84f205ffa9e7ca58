"""The pocket benchmark: trainers side by side on real hearts at equal time, small enough for two cores.

    export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
    B="python docs/lab/experiments/pocket_benchmark.py"
    $B prepare --acdc ACDC_FOLDER                  # converts (unless dataset 27 is there), plans, preprocesses
    $B calibrate TRAINER TRAINER...                # what an iteration costs beside the reference's
    $B run --trainer TRAINER --fold 1 --budget-minutes 30
    $B run --trainer TRAINER --fold 0 --budget-minutes 180 --final [--c]
    python docs/lab/experiments/pocket_report.py   # the table, and the curves as a PNG

80 patients of ACDC at 2.5 mm, patches of 112 x 112 pixels (280 mm), batch 8, and for nnU-Net's own networks the
architecture that its planner gives to patches of that size. A budget is time on one core, augmentation included, and
`run` does as many iterations as it holds, with the schedule fitted to them. So a training may share the machine, be
paused, or be stopped (SIGTERM) and resumed (`--c`), and loses nothing by it. Runs go two at a time, a core each
(`taskset -c 0 $B run ...`). nnU-Net's validation between epochs is not part of the budget.

A machine's speed changes from hour to hour. So `calibrate` takes a few iterations of each trainer in turn, in processor
time, and what counts is the ratio to the reference, nnU-Net's U-Net with our recipe in bfloat16. A minute is a minute
of the machine on which the reference was first measured. Before all: `export MALLOC_MMAP_THRESHOLD_=1073741824
MALLOC_TRIM_THRESHOLD_=4294967296`, or a tenth of the time goes into memory that is given back and asked for again.

Folds 1 and 2 are there to choose on. What is reported is trained with `--final` on folds 0, 3 or 4, which no choice may
see. `run` predicts the whole frames of the fold's validation patients, with `--final` mirrored as nnU-Net does (that
takes four times as long), and evaluates them.
With `--epochs 50 --configuration 2d` in place of a budget, it is the real thing, for a GPU (`pocket_gpu.sh`).
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from statistics import fmean, median

from pocket_calibrate import calibrate
from pocket_prepare import (
    CHOOSE_ON,
    CONFIGURATION,
    PLANS,
    REPORT_ON,
    RESULTS,
    circumstances,
    evaluation_file,
    folder_of,
    make_trainer,
    now,
    prepare,
    run_name,
)

STOPPED = 75  # exit code of a training that was asked to stop, as everywhere in the package


def fitted(iterations: int) -> tuple[int, int]:
    """Epochs and iterations of an epoch (40 to 60) whose product comes nearest below ``iterations``."""
    if iterations < 40:
        return 1, max(1, iterations)
    return max(((iterations // n, n) for n in range(40, 61)), key=lambda pair: (pair[0] * pair[1], -abs(pair[1] - 50)))


def length_of(arguments: argparse.Namespace, key: str) -> dict:
    """Epochs, iterations of each, and what they cost, for the budget or for a number of epochs."""
    from nnunetv2_levit.files import read_json

    if arguments.epochs is not None:
        return {"epochs": arguments.epochs, "iterations_per_epoch": 250, "budget_minutes": None}
    path = RESULTS / arguments.calibration
    known = read_json(path, what="the calibration") if path.is_file() else {}
    key = arguments.cost_of or key
    if key not in known:
        sys.exit(f"{path} does not say what an iteration of {key} costs: run `calibrate {key}`")
    seconds = known[key]["seconds_per_iteration"]
    epochs, per_epoch = fitted(math.floor(arguments.budget_minutes * 60 / seconds))
    return {
        "epochs": epochs,
        "iterations_per_epoch": per_epoch,
        "budget_minutes": arguments.budget_minutes,
        "seconds_per_iteration": seconds,
    }


def check_fold(fold: int, *, final: bool) -> None:
    """Keep the cases of the final figures out of every choice."""
    if final and fold not in REPORT_ON:
        sys.exit(f"fold {fold} was there to choose on: --final is for the folds {REPORT_ON}")
    if not final and fold not in CHOOSE_ON:
        sys.exit(f"fold {fold} is there to report on: choose on the folds {CHOOSE_ON}, or add --final")


def train(arguments: argparse.Namespace, length: dict) -> Path:
    """Train, or go on training; returns the fold's folder."""
    import torch
    from nnunetv2.run.run_training import maybe_load_checkpoint

    from nnunetv2_levit.errors import TrainingStoppedError
    from nnunetv2_levit.trainers.seeding import make_repeatable
    from nnunetv2_levit.trainers.stop_signals import stop_when_asked

    name, configuration = arguments.trainer, arguments.configuration
    kind, plans = arguments.device, arguments.plans
    trainer = make_trainer(name, configuration, arguments.fold, kind, plans=plans, resume=arguments.c)
    folder = Path(trainer.output_folder)
    if (folder / "checkpoint_final.pth").is_file():
        return folder
    begun = any((folder / f"checkpoint_{kind}.pth").is_file() for kind in ("latest", "best"))
    if begun and not arguments.c:
        sys.exit(f"{folder} holds an unfinished training: go on with --c, or remove it")
    trainer.num_epochs, trainer.num_iterations_per_epoch = length["epochs"], length["iterations_per_epoch"]
    trainer.num_val_iterations_per_epoch = max(1, length["iterations_per_epoch"] // 10)
    trainer.save_every = 5
    make_repeatable(trainer, arguments.seed)
    stop_when_asked(trainer)
    trainer.initialize()
    maybe_load_checkpoint(trainer, begun, False)
    torch.backends.cudnn.benchmark = True  # as nnU-Net's command sets it
    try:
        trainer.run_training()
    except TrainingStoppedError as stop:
        print(f"{stop}; go on with --c")
        sys.exit(STOPPED)
    return folder


def enter_run(key: str, length: str, fold: int, seed: int) -> Path:
    """The folder of a run; from now on its training is where nnU-Net looks for results."""
    from nnunetv2_levit.nnunet.environment import nnunet_folder

    work = nnunet_folder("nnUNet_results") / "pocket" / run_name(key, length, fold, seed)
    os.environ["nnUNet_results"] = str(work / "training")  # noqa: SIM112
    return work


def peak_memory(device: str, work: Path) -> dict:
    """MiB that a training on a GPU has held at most, its parts of earlier calls included."""
    import torch

    if device != "cuda":
        return {}
    path = work / "peak_memory_mib.json"
    earlier = json.loads(path.read_text()) if path.is_file() else 0
    peak = max(earlier, round(torch.cuda.max_memory_allocated() / 2**20))
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(peak))
    return {"peak_memory_mib": peak}


def validation_frames(fold: int, folder: Path) -> tuple[Path, Path]:
    """Folders of links to the images and labels of a fold's validation cases."""
    raw, preprocessed = folder_of("nnUNet_raw"), folder_of("nnUNet_preprocessed")
    cases = json.loads((preprocessed / "splits_final.json").read_text())[fold]["val"]
    images, labels = folder / "images", folder / "labels"
    for target, source, ending in ((images, "imagesTr", "_0000.nii.gz"), (labels, "labelsTr", ".nii.gz")):
        target.mkdir(parents=True, exist_ok=True)
        for case in cases:
            link = target / f"{case}{ending}"
            if not link.is_symlink():
                link.symlink_to(raw / source / link.name)
    return images, labels


def run(arguments: argparse.Namespace) -> None:
    """Train for the budget, predict the validation frames, evaluate, and append one row to runs.jsonl."""
    from nnunetv2_levit.evaluation.evaluate import evaluate
    from nnunetv2_levit.evaluation.training_curves import read_fold
    from nnunetv2_levit.files import write_json
    from nnunetv2_levit.inference.predict import predict

    check_fold(arguments.fold, final=arguments.final)
    machine = circumstances(arguments.device)  # now: after the training it may not fail
    key = arguments.trainer
    if arguments.configuration != CONFIGURATION:
        key += f"@{arguments.configuration}"
    length = length_of(arguments, key)
    work = enter_run(key, str(arguments.epochs or f"{arguments.budget_minutes:g}min"), arguments.fold, arguments.seed)
    if arguments.once and (work / "row.json").is_file():
        print(f"{work.name} is done")
        return
    try:
        fold_folder = train(arguments, length)
    finally:
        peak = peak_memory(arguments.device, work)

    images, labels = validation_frames(arguments.fold, work)
    cores = len(os.sched_getaffinity(0))
    workers = max(1, cores // 4)
    predict(
        model=fold_folder.parent,
        folds=[arguments.fold],
        images=images,
        output=work / "predictions",
        device=arguments.device,
        preprocessing_workers=workers,
        exporting_workers=workers,
        continue_prediction=True,
        mirroring=arguments.final,
        progress=True,
    )
    evaluation = evaluate(
        predictions=work / "predictions",
        truth=labels,
        dataset=folder_of("nnUNet_raw"),
        name=key,
        workers=2 * workers,
        output=work / "evaluation",
    )
    epochs = read_fold(fold_folder)["epochs"]
    row = {
        "command": " ".join(["python docs/lab/experiments/pocket_benchmark.py", *sys.argv[1:]]),
        "trainer": key,
        "fold": arguments.fold,
        "seed": arguments.seed,
        "final": arguments.final,
        "mirroring": arguments.final and "_nomirror" not in key,  # at prediction
        **length,
        "device_type": arguments.device,
        "cores": cores,
        "iterations": length["epochs"] * length["iterations_per_epoch"],
        "wall_seconds_with_validation": round(sum(epoch["seconds"] for epoch in epochs)),
        "epoch_seconds": round(median(epoch["seconds"] for epoch in epochs), 2),  # without compiling, in the first one
        **peak,
        **{metric: measured(evaluation, metric) for metric in ("dice", "hd95")},
        "curve": [round(fmean(v or 0.0 for v in epoch["pseudo_dice"]), 4) for epoch in epochs],
        **machine,
        "date": now(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "runs.jsonl").open("a") as file:  # one write of one line: runs side by side don't mix
        file.write(json.dumps(row) + "\n")
    if arguments.final:
        evaluation |= {"predictions": key, "ground_truth": "labelsTr"}  # no paths of this machine
        write_json(evaluation_file(RESULTS, work.name), evaluation)
    write_json(work / "row.json", row)
    print(json.dumps({name: row[name] for name in ("trainer", "fold", "iterations", "dice", "hd95")}, indent=1))


def measured(evaluation: dict, metric: str) -> dict:
    """Mean of a metric over the cases, by structure and over all; and in how many frames the distance has no value."""
    means = {name: values[metric]["mean"] for name, values in evaluation["summary"].items()}
    means["mean"] = evaluation["mean"][metric]["mean"]
    result = {name: None if value is None else round(value, 4) for name, value in means.items()}
    if metric == "hd95":
        result["without_value"] = sum(len(e["missed"]) + len(e["spurious"]) for e in evaluation["empty"].values())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(function, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__, help=summary)
        added.set_defaults(function=function)
        return added

    added = command(prepare, "convert, plan, preprocess, configure")
    added.add_argument("--acdc", type=Path, help="ACDC as released, where dataset 27 is not converted yet")
    added = command(calibrate, "what an iteration of trainers costs")
    added.add_argument("trainers", nargs="+", help="TRAINER or TRAINER@CONFIGURATION")
    added.add_argument("--iterations", type=int, default=20)
    added.add_argument("--output", default="calibration.json")
    added = command(run, "train for a budget, predict, evaluate")
    added.add_argument("--trainer", required=True, help="without _<N>iterations and _<N>epochs")
    added.add_argument("--configuration", default=CONFIGURATION)
    added.add_argument("--plans", default=PLANS)
    added.add_argument("--fold", type=int, required=True)
    added.add_argument("--seed", type=int, default=0)
    length = added.add_mutually_exclusive_group(required=True)
    length.add_argument("--budget-minutes", type=float, help="of training on one core")
    length.add_argument("--epochs", type=int, help="of 250 iterations, instead of a budget")
    added.add_argument("--final", action="store_true", help="for the report: folds 0, 3 and 4")
    added.add_argument("--c", action="store_true", help="go on with a training that was interrupted")
    added.add_argument("--once", action="store_true", help="nothing where this run is done (its folder has a row.json)")
    added.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    added.add_argument("--calibration", default="calibration.json")
    added.add_argument("--cost-of", help="the trainer whose iteration costs as much, where none was measured")
    arguments = parser.parse_args()

    from nnunetv2_levit.errors import UserError
    from nnunetv2_levit.nnunet.environment import set_up_process

    set_up_process()
    try:
        arguments.function(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
