"""The pocket benchmark: trainers side by side on real hearts at equal time, small enough for two cores.

    export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
    B="python docs/lab/experiments/pocket_benchmark.py"
    $B prepare --acdc ACDC_FOLDER                  # converts (unless dataset 27 is there), plans, preprocesses
    $B calibrate TRAINER TRAINER...                # seconds per iteration, in turn; alone on the machine
    $B run --trainer TRAINER --fold 1 --budget-minutes 30
    $B run --trainer TRAINER --fold 0 --budget-minutes 180 --final [--c]
    $B table [--final]
    $B curves [--final]

80 patients of ACDC at 2.5 mm, patches of 112 x 112 pixels (280 mm), batch 8, and for nnU-Net's own networks the
architecture that its planner gives to patches of that size. A budget is time alone on the machine: `calibrate` measures
what an iteration costs there, with its data, and `run` does as many as the budget holds, with the schedule fitted to
them. So a training may share the machine, be paused, or be stopped (SIGTERM) and resumed (`--c`), and loses nothing by
it. nnU-Net's validation between epochs is not part of the budget. Two runs at a time are best kept to a core each
(`taskset -c 0`, `taskset -c 1`).

Folds 1 and 2 are there to choose on. What is reported is trained with `--final` on folds 0, 3 or 4, which no choice may
see. `run` predicts the whole frames of the fold's validation patients, mirrored as nnU-Net does, and evaluates them.
With `--epochs 50 --configuration 2d` in place of a budget, it is the real thing, for a GPU (`pocket_gpu.sh`).
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections import defaultdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

DATASET, PLANS, CONFIGURATION = 27, "pocket", "2d_112"
SPACING, PATCH, BATCH = (10.0, 2.5, 2.5), (112, 112), 8
CHOOSE_ON, REPORT_ON = (1, 2), (0, 3, 4)
RESULTS = Path(__file__).resolve().parents[1] / "results" / "pocket"
PREFETCHED = 8  # batches that a data loader may have ready: they would make the first iterations of a block cheap
STOPPED = 75  # exit code of a training that was asked to stop, as everywhere in the package
os.environ.setdefault("nnUNet_n_proc_DA", "1")


def folder_of(variable: str) -> Path:
    from nnunetv2_levit.nnunet.environment import dataset_folder

    return dataset_folder(variable, DATASET, advice="run `prepare` first")


# prepare ------------------------------------------------------------------------------------------------------------


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
        subprocess.run([Path(sys.executable).with_name(words[0]), *map(str, words[1:])], check=True)
    plans = read_json(plans_file, what="the plans")
    shared = {"inherits_from": "2d", "patch_size": list(PATCH), "batch_size": BATCH}
    for name, planner in ((CONFIGURATION, "default"), (f"{CONFIGURATION}_resenc", "resenc")):
        plans["configurations"][name] = {**shared, "architecture": architecture_for_patch(planner)}
    write_json(plans_file, plans, indent=4, allow_nan=True)
    print(f"{plans_file} has the configurations {CONFIGURATION} and {CONFIGURATION}_resenc")


# calibrate ----------------------------------------------------------------------------------------------------------


def make_trainer(name: str, configuration: str, fold: int, device: str, *, plans: str = PLANS, resume: bool = False):
    """A trainer as nnU-Net makes it, not yet initialised."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(len(os.sched_getaffinity(0)) if device == "cpu" else 1)
    return get_trainer_from_args(
        str(DATASET), configuration, fold, name, plans, continue_training=resume, device=torch.device(device)
    )


def others_processor_time() -> float:
    """Seconds of processor time that processes other than this one and its children have used (Linux)."""
    busy = sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4])) / os.sysconf("SC_CLK_TCK")
    ours = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended
            continue
        if path.parent.name == str(os.getpid()) or fields[1] == str(os.getpid()):
            ours += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return busy - ours


def timed_block(trainer, iterations: int) -> tuple[float, float]:
    """Seconds per iteration, data included, and how many cores others used meanwhile."""
    for _ in range(PREFETCHED):
        trainer.train_step(next(trainer.dataloader_train))
    others, start = others_processor_time(), perf_counter()
    for _ in range(iterations):
        trainer.train_step(next(trainer.dataloader_train))
    seconds = perf_counter() - start
    return seconds / iterations, (others_processor_time() - others) / seconds


def calibrate(arguments: argparse.Namespace) -> None:
    """Measure each candidate in blocks of iterations, in turn, and keep the median block."""
    import tempfile

    from tqdm import tqdm

    from nnunetv2_levit.files import read_json, write_json

    os.environ["nnUNet_results"] = tempfile.mkdtemp()  # noqa: SIM112
    trainers = {}
    for key in tqdm(arguments.trainers, desc="building"):
        name, _, configuration = key.partition("@")
        trainer = make_trainer(name, configuration or CONFIGURATION, CHOOSE_ON[0], arguments.device)
        trainer.on_train_start()  # the data loaders' processes start now, before anything is computed
        trainers[key] = trainer
    blocks: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in tqdm(range(arguments.rounds * len(trainers)), desc="measuring"):
        key = list(trainers)[number % len(trainers)]
        if key not in blocks:
            trainers[key].on_train_epoch_start()
        blocks[key].append(timed_block(trainers[key], arguments.iterations))
    path = RESULTS / arguments.output
    known = read_json(path, what="the calibration") if path.is_file() else {}
    for key, values in blocks.items():
        known[key] = {
            "seconds_per_iteration": round(median(seconds for seconds, _ in values), 4),
            "blocks": [round(seconds, 4) for seconds, _ in values],
            "cores_used_by_others": [round(cores, 2) for _, cores in values],
            "iterations_of_a_block": arguments.iterations,
            "parameters": sum(p.numel() for p in trainers[key].network.parameters()),
            **circumstances(arguments.device),
        }
        print(f"{key}: {known[key]['seconds_per_iteration']} s, others {known[key]['cores_used_by_others']} cores")
    write_json(path, dict(sorted(known.items())))
    for trainer in trainers.values():
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            getattr(loader, "_finish", lambda: None)()


def circumstances(device: str) -> dict:
    import torch

    kind = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    if device == "cpu" and Path("/proc/cpuinfo").is_file():
        lines = [line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")]
        kind = lines[0].partition(":")[2].strip() if lines else kind
    return {
        "device": f"{kind}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "nnunetv2_levit")},
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
    }


# run ----------------------------------------------------------------------------------------------------------------


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
    if key not in known:
        sys.exit(f"{path} does not say what an iteration of {key} costs: run `calibrate {key}` alone on the machine")
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
    trainer.num_val_iterations_per_epoch = max(1, length["iterations_per_epoch"] // 5)
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
    from nnunetv2_levit.nnunet.environment import nnunet_folder

    check_fold(arguments.fold, final=arguments.final)
    key = arguments.trainer
    if arguments.configuration != CONFIGURATION:
        key += f"@{arguments.configuration}"
    length = length_of(arguments, key)
    identity = f"{key}_{arguments.epochs or f'{arguments.budget_minutes:g}min'}_f{arguments.fold}_s{arguments.seed}"
    work = nnunet_folder("nnUNet_results") / "pocket" / identity
    os.environ["nnUNet_results"] = str(work / "training")  # noqa: SIM112
    fold_folder = train(arguments, length)

    images, labels = validation_frames(arguments.fold, work)
    predict(
        model=fold_folder.parent,
        folds=[arguments.fold],
        images=images,
        output=work / "predictions",
        device=arguments.device,
        preprocessing_workers=1,
        exporting_workers=1,
        continue_prediction=True,
        progress=True,
    )
    evaluation = evaluate(
        predictions=work / "predictions",
        truth=labels,
        dataset=folder_of("nnUNet_raw"),
        name=key,
        workers=2,
        output=work / "evaluation",
    )
    epochs = read_fold(fold_folder)["epochs"]
    row = {
        "command": " ".join(["python docs/lab/experiments/pocket_benchmark.py", *sys.argv[1:]]),
        "trainer": key,
        "fold": arguments.fold,
        "seed": arguments.seed,
        "final": arguments.final,
        **length,
        "iterations": length["epochs"] * length["iterations_per_epoch"],
        "wall_seconds_with_validation": round(sum(epoch["seconds"] for epoch in epochs)),
        **{metric: measured(evaluation, metric) for metric in ("dice", "hd95")},
        "curve": [round(fmean(v or 0.0 for v in epoch["pseudo_dice"]), 4) for epoch in epochs],
        **circumstances(arguments.device),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "runs.jsonl").open("a") as file:  # one write of one line: runs side by side don't mix
        file.write(json.dumps(row) + "\n")
    if arguments.final:
        evaluation |= {"predictions": key, "ground_truth": "labelsTr"}  # no paths of this machine
        write_json(RESULTS / "final" / f"{identity}.json", evaluation)
    print(json.dumps({name: row[name] for name in ("trainer", "fold", "iterations", "dice", "hd95")}, indent=1))


def measured(evaluation: dict, metric: str) -> dict:
    """Mean of a metric over the cases, by structure and over all; and in how many frames the distance has no value."""
    means = {name: values[metric]["mean"] for name, values in evaluation["summary"].items()}
    means["mean"] = evaluation["mean"][metric]["mean"]
    result = {name: None if value is None else round(value, 4) for name, value in means.items()}
    if metric == "hd95":
        result["without_value"] = sum(len(e["missed"]) + len(e["spurious"]) for e in evaluation["empty"].values())
    return result


# table and curves ---------------------------------------------------------------------------------------------------


def runs(*, final: bool) -> dict[tuple, list[dict]]:
    """Rows by trainer and budget; of a run that was repeated, the last."""
    lines = (RESULTS / "runs.jsonl").read_text().splitlines()
    latest = {}
    for row in map(json.loads, lines):
        if row["final"] == final:
            latest[row["trainer"], row["budget_minutes"], row["epochs"], row["fold"], row["seed"]] = row
    groups = defaultdict(list)
    for (trainer, budget, *_), row in latest.items():
        groups[trainer, budget].append(row)
    return groups


def table(arguments: argparse.Namespace) -> None:
    """One row for each trainer and budget, means over its folds and seeds, the best first."""
    head = "| trainer | minutes | iterations | s / iteration | runs | DSC | RV | MYO | LV | HD95 (mm) | no value |"
    print(f"{head}\n{'|---' * head.count(' |')}|")
    groups = runs(final=arguments.final)
    order = sorted(groups, key=lambda key: (key[1] or 0, -fmean(row["dice"]["mean"] for row in groups[key])))
    for key in order:
        rows = groups[key]
        dice = [f"{100 * fmean(row['dice'][name] for row in rows):.2f}" for name in ("mean", "RV", "MYO", "LV")]
        places = ", ".join(f"{row['fold']}/{row['seed']}" for row in rows)
        cells = [f"`{key[0]}`", f"{key[1]:g}" if key[1] else "–", rows[0]["iterations"]]
        cells += [rows[0].get("seconds_per_iteration", "–"), places, *dice]
        distances = [row["hd95"]["mean"] for row in rows if row["hd95"]["mean"] is not None]
        cells += [f"{fmean(distances):.1f}" if distances else "–"]
        cells += [sum(row["hd95"]["without_value"] for row in rows)]
        print("| " + " | ".join(map(str, cells)) + " |")


def curves(arguments: argparse.Namespace) -> None:
    """Mean pseudo Dice over the time of training, a line for each trainer and budget, to one PNG."""
    from nnunetv2_levit.figures import draw_learning_curves

    lines = {}
    for (trainer, budget), rows in runs(final=arguments.final).items():
        shortest = min(len(row["curve"]) for row in rows)
        values = [fmean(row["curve"][epoch] for row in rows) for epoch in range(shortest)]
        length = budget or rows[0]["epochs"]
        lines[f"{trainer}, {budget:g} min" if budget else trainer] = (
            [length * (epoch + 1) / shortest for epoch in range(shortest)],
            values,
        )
    target = RESULTS / ("curves_final.png" if arguments.final else "curves.png")
    draw_learning_curves(lines, time_label="minutes of training (epochs where there is no budget)", target=target)
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(function, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__, help=summary)
        added.set_defaults(function=function)
        return added

    added = command(prepare, "convert, plan, preprocess, configure")
    added.add_argument("--acdc", type=Path, help="ACDC as released, where dataset 27 is not converted yet")
    added = command(calibrate, "seconds per iteration of trainers")
    added.add_argument("trainers", nargs="+", help="TRAINER or TRAINER@CONFIGURATION")
    added.add_argument("--rounds", type=int, default=3)
    added.add_argument("--iterations", type=int, default=16, help="of a block")
    added.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    added.add_argument("--output", default="calibration.json")
    added = command(run, "train for a budget, predict, evaluate")
    added.add_argument("--trainer", required=True, help="without _<N>iterations and _<N>epochs")
    added.add_argument("--configuration", default=CONFIGURATION)
    added.add_argument("--plans", default=PLANS)
    added.add_argument("--fold", type=int, required=True)
    added.add_argument("--seed", type=int, default=0)
    length = added.add_mutually_exclusive_group(required=True)
    length.add_argument("--budget-minutes", type=float, help="of training alone on the machine")
    length.add_argument("--epochs", type=int, help="of 250 iterations, instead of a budget")
    added.add_argument("--final", action="store_true", help="for the report: folds 0, 3 and 4")
    added.add_argument("--c", action="store_true", help="go on with a training that was interrupted")
    added.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    added.add_argument("--calibration", default="calibration.json")
    for function in (table, curves):
        added = command(function, function.__doc__.partition(",")[0])
        added.add_argument("--final", action="store_true")
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
