"""Disturbs a study in every way that a cluster knows and compares its page with that of an undisturbed run.

    python docs/lab/experiments/study_faults.py --work FOLDER [--kills 20] [--seed 0] [--slurm one_node_slurm.sh]

Two trainers x two folds x two seeds on the phantom, test images, the CPU, one thread each. First undisturbed; then by
the local queue with random kills (-9 of a training, of one of its workers, or of the queue) and two queues at once;
then, with ``--slurm`` (a script that starts a Slurm of one node: ``start DIR`` prints its SLURM_CONF), by Slurm with
kills, `scontrol requeue`, a time limit of two minutes, two submissions at once and a restarted controller. After every
kill each checkpoint is read. At the end: the page (without seconds), predictions and weights are the same, each epoch
is in its checkpoint once. Writes FOLDER/faults.json.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.nnunet.configurations import add_configuration
from nnunetv2_levit.study import load_study, status
from nnunetv2_levit.study.attempts import attempts
from nnunetv2_levit.study.jobs import attempts_file, fold_folder, jobs_of, lock_file
from nnunetv2_levit.study.locks import holder_of

DATASET_ID = 27
STUDY = """
[study]
name = "faults"
folder = "{folder}"
dataset = {dataset}
configurations = ["2d_p48x40"]
trainers = ["LeViTUNetTrainer_128s_3iterations_{short}epochs", "LeViTUNetTrainer_128s_conv_3iterations_{long}epochs"]
folds = [0, 1]
seeds = [0, 1]
[test]
images = "imagesTs"
labels = "labelsTs"
[prediction]
preprocessing_workers = 1
exporting_workers = 1
[executor]
kind = "{executor}"
[local]
devices = ["cpu", "cpu"]
[slurm]
gpus = 0
cpus = 1
memory_gb = 2
time_minutes = 2
seconds_per_epoch = 1
array_limit = 2
"""


def prepare(work: Path) -> None:
    """Phantom dataset, planned and preprocessed; two of its training images stand in for test images."""
    os.environ |= {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "nnUNet_def_n_proc": "1"}
    os.environ |= {"nnUNet_n_proc_DA": "1"}
    if (work / "imagesTs").is_dir():
        return
    source = write_phantom(work / "source", patients=6, size=56, slices=2)
    convert("acdc", source=source, dataset_id=DATASET_ID)
    plan = [Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess"), "-d", str(DATASET_ID), "-c", "2d"]
    subprocess.run([*plan, "-np", "1", "-npfp", "1"], check=True, stdout=subprocess.DEVNULL)
    add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
    (raw,) = (work / "raw").glob("Dataset*")
    for kind in ("labels", "images"):
        (work / f"{kind}Ts").mkdir()
        for path in sorted((raw / f"{kind}Tr").iterdir())[:2]:
            shutil.copy(path, work / f"{kind}Ts")


def write_study(work: Path, name: str, executor: str, sizes: tuple[int, int]) -> Path:
    file = work / f"{name}.toml"
    short, long = sizes
    file.write_text(STUDY.format(folder=name, dataset=DATASET_ID, executor=executor, short=short, long=long))
    return file


def start(file: Path) -> subprocess.Popen:
    """`study FILE run` in a process and session of its own; its lines go beside the file."""
    with file.with_suffix(".txt").open("a") as log:
        command = [sys.executable, "-m", "nnunetv2_levit.cli", "study", str(file), "run"]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def all_done(study) -> bool:
    return all(state.name == "done" for state in status(study).states.values())


# what must be the same ------------------------------------------------------------------------------------------------


def page_without_seconds(study) -> str:
    """The page with the last column of its first tables, the seconds an epoch, left out."""
    page = (study.folder / "report" / "report.html").read_text()

    def without_last_column(table: re.Match) -> str:
        text = table[0]
        if "seconds an epoch" not in text:
            return text
        return re.sub(r"<t([dh])>[^<]*</t\1>\s*</tr>", "</tr>", text)

    return re.sub(r"<table>.*?</table>", without_last_column, page, flags=re.DOTALL)


def signature(study) -> dict[str, str]:
    """Digests of the page, the predictions and every training's final weights; each epoch is there once."""
    result = {"page": page_without_seconds(study)}
    for path in sorted((study.folder / "predictions").rglob("*.nii.gz")):
        result[str(path.relative_to(study.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for job in jobs_of(study).values():
        if job.kind != "train":
            continue
        checkpoint = torch.load(
            fold_folder(study, job) / "checkpoint_final.pth", weights_only=False, map_location="cpu"
        )
        epochs = int(re.search(r"_(\d+)epochs", job.model.trainer)[1])
        assert checkpoint["current_epoch"] == epochs, job.id
        assert {len(values) for values in checkpoint["logging"].values()} == {epochs}, job.id
        digest = hashlib.sha256()
        for name, value in checkpoint["network_weights"].items():
            digest.update(name.encode() + value.numpy().tobytes())
        result[job.id] = digest.hexdigest()
    return result


def read_checkpoints(study) -> int:
    """Read every checkpoint that is there, as a resumed training would; returns how many."""
    files = list(study.folder.rglob("checkpoint_*.pth"))
    for file in files:
        with suppress(FileNotFoundError):  # renamed to the final one, or removed by nnU-Net at the end
            torch.load(file, weights_only=False, map_location="cpu")
    return len(files)


# disturbances ---------------------------------------------------------------------------------------------------------


def holders(study) -> list[int]:
    """Processes that train or predict now."""
    found = [holder_of(lock_file(study, job)) for job in jobs_of(study).values()]
    return [holder.pid for holder in found if holder is not None]


def children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def disturb_local(study, file: Path, kills: int, rng: random.Random) -> Counter:
    """Kill something ``kills`` times; start the queue again where it died or gave up; two queues run at once."""
    done: Counter = Counter()
    queues = [start(file), start(file)]
    while not (done.total() >= kills and all_done(study)):
        time.sleep(rng.uniform(1, 14) if done.total() < kills else 3)
        if done.total() < kills and (running := holders(study)):
            what = rng.choice(["training", "training", "worker", "queue"])
            victims = {"training": running, "worker": [c for pid in running for c in children(pid)]}
            victims["queue"] = [queue.pid for queue in queues if queue.poll() is None]
            if victims[what]:
                kill(rng.choice(victims[what]))
                done[what] += 1
                read_checkpoints(study)
        for index, queue in enumerate(queues):
            if queue.poll() is not None and not all_done(study):
                queues[index] = start(file)
        if all_done(study) and done.total() < kills:
            break
    for queue in queues:
        queue.wait()
    return done


def slurm_running() -> list[str]:
    listing = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True).stdout
    return listing.split()


def restart_controller() -> None:
    """Stop Slurm's controller (not its node) and start it again."""
    pid = Path(os.environ["SLURM_CONF"]).parent / "run" / "slurmctld.pid"
    os.kill(int(pid.read_text()), signal.SIGTERM)
    time.sleep(8)
    subprocess.run(["slurmctld"], check=True)


def disturb_slurm(study, file: Path, kills: int, rng: random.Random) -> Counter:
    """As `disturb_local`, with Slurm's own disturbances too; submits again whenever nothing is queued."""
    done: Counter = Counter()
    for process in [start(file), start(file)]:
        process.wait()
    plan = ["kill"] * kills + ["requeue"] * 2 + ["controller"]
    rng.shuffle(plan)
    while not all_done(study):
        time.sleep(rng.uniform(6, 14))
        if plan and (running := holders(study)):
            what = plan.pop()
            if what == "kill":
                kill(rng.choice(running))
                read_checkpoints(study)
            elif what == "requeue" and (jobs := slurm_running()):
                subprocess.run(["scontrol", "requeue", rng.choice(jobs)], capture_output=True)
            elif what == "controller":
                restart_controller()
            done[what] += 1
        if not any(state.name in ("queued", "running") for state in status(study).states.values()):
            start(file).wait()
            done["submitted again"] += 1
    logs = [log.read_text(errors="replace") for log in (study.folder / "logs").glob("train-*.txt")]
    for name in ("SIGUSR2", "SIGTERM"):  # the time limit's warning; a requeue
        done[f"stopped by {name}"] = sum(text.count(f"Stopped as asked ({name})") for text in logs)
    return done


def report(study, disturbed: Counter, reference: dict[str, str]) -> dict:
    found = signature(study)
    differing = [name for name in reference if reference[name] != found.get(name)]
    outcomes = Counter(
        attempt.outcome or "killed"
        for job in jobs_of(study).values()
        for attempt in attempts(attempts_file(study, job))
    )
    return {
        "disturbances": dict(disturbed),
        "attempts": dict(outcomes),
        "compared": len(reference),
        "differing": differing,
        "checkpoints_read_at_the_end": read_checkpoints(study),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--slurm-kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, nargs=2, default=(3, 40), help="of the two trainers")
    parser.add_argument("--slurm", type=Path, help="script that starts a Slurm of one node")
    parser.add_argument("--skip-local", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work)
    rng = random.Random(arguments.seed)
    sizes = tuple(arguments.epochs)
    result = {"command": " ".join(["study_faults.py", *sys.argv[1:]])}

    study = load_study(write_study(work, "undisturbed", "local", sizes))
    began = time.monotonic()
    while not all_done(study):
        start(study.file).wait()
    reference = signature(study)
    result["undisturbed"] = {"seconds": round(time.monotonic() - began)}
    print(result, flush=True)

    runs = [] if arguments.skip_local else [("local", disturb_local, arguments.kills)]
    if arguments.slurm is not None:
        # the node's two hardware threads are two CPUs here, for two jobs at once
        script = work / "slurm.sh"
        script.write_text(arguments.slurm.read_text().replace("CR_Core", "CR_CPU"))
        started = subprocess.run(["bash", script, "start", work / "slurm_node"], capture_output=True, text=True)
        os.environ["SLURM_CONF"] = started.stdout.strip().rpartition("=")[2]
        runs.append(("slurm", disturb_slurm, arguments.slurm_kills))
    for name, disturb, kills in runs:
        study = load_study(write_study(work, name, name, sizes))
        began = time.monotonic()
        disturbed = disturb(study, study.file, kills, rng)
        result[name] = report(study, disturbed, reference) | {"seconds": round(time.monotonic() - began)}
        print(json.dumps({name: result[name]}), flush=True)
        (work / "faults.json").write_text(json.dumps(result, indent=1) + "\n")
    if arguments.slurm is not None:
        subprocess.run(["bash", work / "slurm.sh", "stop", work / "slurm_node"], capture_output=True)
    if any(result[name]["differing"] for name, *_ in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
