"""What a study costs beside its trainings: the queue's time, file operations of many jobs, and days on paper.

    python docs/lab/experiments/study_scale.py queue [--jobs 6] [--seconds 60]    about 3 minutes
    python docs/lab/experiments/study_scale.py files [--seeds 100]
    python docs/lab/experiments/study_scale.py paper

`queue` runs jobs that sleep, two at a time, by the local queue and by a shell loop over the same commands, and counts
the processor time of the queue and of starting a job: another process on the machine can't change it, as it would
change the clock. `files` makes the files of 20 trainers x 5 folds x SEEDS trainings, times `plan`'s and `status`'
reading of them, and counts operations on files. `paper` computes days, room and restarts from seconds per epoch.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_levit.study import load_study
from nnunetv2_levit.study.jobs import Model, fold_folder, jobs_of, needs
from nnunetv2_levit.study.local_queue import LocalQueue
from nnunetv2_levit.study.state import StudyFiles
from nnunetv2_levit.study.study_status import study_status
from nnunetv2_levit.study.time_limits import limits_of

SLEEPER = """
import os, time
from nnunetv2_levit.study import work
from nnunetv2_levit.study.jobs import fold_folder, report_folder

def train(study, job, device):
    time.sleep(float(os.environ["SLEEP"]))
    fold = fold_folder(study, job)
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    (fold / "validation" / "summary.json").write_text("{\\n}")

work.TASKS.update(train=train, evaluate=lambda study, job, device: os._exit(1))
"""


def make_study(work: Path, *, trainers: int, folds: int, seeds: int):
    """A study's file beside folders that look like nnU-Net's, without data."""
    (work / "preprocessed" / "Dataset027_Phantom").mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_preprocessed"] = str(work / "preprocessed")  # noqa: SIM112 (nnU-Net's name)
    names = [f"Trainer{number}" for number in range(trainers)]
    file = work / "study.toml"
    file.write_text(
        f"[study]\ndataset = 27\nfolder = 'study'\ntrainers = {json.dumps(names)}\nfolds = {list(range(folds))}\n"
        f"seeds = {list(range(seeds))}\n[local]\ndevices = ['cpu', 'cpu']\n"
    )
    return load_study(file)


# the queue beside a shell loop ----------------------------------------------------------------------------------------


def processor_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall clock and processor time of a command with all that it starts and waits for."""
    before, began = processor_seconds(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
    return time.monotonic() - began, processor_seconds(resource.RUSAGE_CHILDREN) - before


def queue(work: Path, jobs: int, seconds: float) -> dict:
    study = make_study(work, trainers=1, folds=jobs, seeds=1)
    (work / "site").mkdir()
    (work / "site" / "sitecustomize.py").write_text(SLEEPER)
    paths = [str(work / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "SLEEP": str(seconds)}
    program = (
        "import resource, sys; from nnunetv2_levit.study import load_study; "
        "from nnunetv2_levit.study.local_queue import LocalQueue; LocalQueue(load_study(sys.argv[1])).run(); "
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, file=sys.stderr)"
    )
    python = [sys.executable, "-c", program, str(study.file)]
    began, before = time.monotonic(), processor_seconds(resource.RUSAGE_CHILDREN)
    done = subprocess.run(python, env=environment, capture_output=True, text=True)
    wall, processor = time.monotonic() - began, processor_seconds(resource.RUSAGE_CHILDREN) - before
    own = float(done.stderr.strip().splitlines()[-1])
    sleep = f"{sys.executable} -c 'import time; time.sleep({seconds})'"
    half = " ; ".join([sleep] * (jobs // 2))
    loop_wall, loop_processor = measured(["bash", "-c", f"({half}) & ({half}) & wait"], dict(os.environ))
    lost = (processor - loop_processor) / jobs
    return {
        "jobs": jobs,
        "seconds_of_a_job": seconds,
        "queue": {"wall": round(wall, 2), "processor": round(processor, 2), "of_the_queue_itself": round(own, 2)},
        "shell_loop": {"wall": round(loop_wall, 2), "processor": round(loop_processor, 2)},
        "processor_seconds_lost_a_job": round(lost, 2),
        "percent_of_a_job": round(100 * lost / seconds, 2),
        "percent_of_an_hour": round(100 * lost / 3600, 3),
        "wall_percent_lost": round(100 * (wall - loop_wall) / loop_wall, 2),
    }


# file operations of many jobs -----------------------------------------------------------------------------------------

LOG = "".join(
    f"2026-01-01 10:00:00.0: {line}\n"
    for epoch in range(40)
    for line in (
        *(f"Epoch {epoch}", "Current learning rate: 0.01", "train_loss 0.5", "val_loss 0.4"),
        *("Pseudo dice [0.5, 0.6]", "Epoch time: 11.0 s", ""),
    )
)


@contextmanager
def counted_operations():
    """Counts calls that go to the file system."""
    counts: Counter = Counter()
    originals = {name: getattr(os, name) for name in ("stat", "scandir", "listdir", "open")}

    def counting(name):
        def call(*arguments, **keywords):
            counts[name] += 1
            return originals[name](*arguments, **keywords)

        return call

    active = [True]

    def hook(event, arguments):
        if active[0] and event == "open" and isinstance(arguments[0], str | bytes):
            counts["open file"] += 1

    sys.addaudithook(hook)
    for name in ("stat", "scandir", "listdir"):
        setattr(os, name, counting(name))
    try:
        yield counts
    finally:
        active[0] = False
        for name in ("stat", "scandir", "listdir"):
            setattr(os, name, originals[name])


def timed(function) -> dict:
    began = time.process_time()
    with counted_operations() as counts:
        function()
    operations = sum(counts.values())
    return {
        "processor_seconds": round(time.process_time() - began, 2),
        "file_operations": dict(counts),
        "seconds_at_1_ms_an_operation": round(operations / 1000, 1),
    }


def one_wake(study, ended: str):
    """What the local queue does when a job has ended: look at what changed, and for what to start next."""
    waiting = LocalQueue(study)
    waiting._needs = {job.id: [n.id for n in needs(study, job)] for job in jobs_of(study).values()}
    waiting._states = StudyFiles(study).states(progress=False)

    def wake() -> None:
        waiting._changed.add(ended)
        waiting._look()
        waiting._ready_jobs()

    return wake


def files(work: Path, seeds: int) -> dict:
    study = make_study(work, trainers=20, folds=5, seeds=seeds)
    trainings = [job for job in jobs_of(study).values() if job.kind == "train"]
    result = {"trainings": len(trainings), "jobs": len(jobs_of(study))}
    result["list_the_jobs"] = timed(lambda: jobs_of(study))
    result["states_before_the_start"] = timed(lambda: StudyFiles(study).states())
    result["the_queue_after_a_job_has_ended"] = timed(one_wake(study, trainings[0].id))
    for job in trainings:
        fold = fold_folder(study, job)
        (fold / "validation").mkdir(parents=True)
        (fold / "training_log_1.txt").write_text(LOG)
        (fold / "checkpoint_final.pth").touch()
        (fold / "validation" / "summary.json").write_text('{\n    "mean": {}\n}')
        (fold / "study_training.json").write_text('{"parameters": 1, "epochs": 40, "seed": 0}')
    result["states_of_the_queue_when_all_are_trained"] = timed(lambda: StudyFiles(study).states(progress=False))
    result["status_when_all_are_trained"] = timed(lambda: study_status(study).text())
    return result


# on paper -------------------------------------------------------------------------------------------------------------


def paper(work: Path) -> dict:
    """5 trainers x 5 folds x 3 seeds of 1000 epochs, on 8 and 64 GPUs."""
    study = make_study(work, trainers=5, folds=5, seeds=3)
    trainings = sum(job.kind == "train" for job in jobs_of(study).values())
    result = {"trainings": trainings, "jobs": len(jobs_of(study)), "settings": []}
    for seconds in (11, 60, 300):
        hours = 1000 * seconds / 3600
        for gpus in (8, 64):
            rounds = math.ceil(trainings / gpus)
            limits = limits_of(study, Model("Trainer0", "2d"), 1000, seconds)
            result["settings"].append(
                {
                    "seconds_an_epoch": seconds,
                    "gpus": gpus,
                    "hours_a_training": round(hours, 1),
                    "gpu_hours": round(trainings * hours),
                    "rounds": rounds,
                    "days": round(rounds * hours / 24, 1),
                    "gpus_busy_percent": round(100 * trainings / (rounds * gpus)),
                    "restarts_at_24_hours": math.ceil(hours / (24 - limits.warning_seconds / 3600)) - 1,
                    "restarts_allowed": limits.restarts,
                    "warning_seconds": limits.warning_seconds,
                }
            )
    for millions in (16, 60, 105):
        result[f"gigabytes_of_checkpoints_at_{millions}_million_parameters"] = round(
            trainings * 3 * 12 * millions * 1e6 / 1e9
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["queue", "files", "paper"])
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.what == "queue":
            result = queue(work, arguments.jobs, arguments.seconds)
        elif arguments.what == "files":
            result = files(work, arguments.seeds)
        else:
            result = paper(work)
    print(json.dumps({"command": " ".join(["study_scale.py", *sys.argv[1:]]), **result}, indent=1))


if __name__ == "__main__":
    main()
