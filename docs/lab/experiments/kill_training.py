"""Kills trainings with SIGKILL at seeded random moments, resumes each with ``--c`` and checks what comes out.

    python docs/lab/experiments/kill_training.py --work FOLDER [--kills 20] [--seed 0]

A phantom dataset, LeViTUNetTrainer_128s with 3 iterations and 6 epochs, the CPU, one thread; a checkpoint_latest.pth is
written every second epoch (nnU-Net: every 50). Every third kill comes while a checkpoint is being written; every third
also cuts the files in half that nnU-Net writes in place when a training starts. Trainings are forked from one process
that has imported nnU-Net, and run nnU-Net's own `run_training_entry`.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from tqdm import tqdm

from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.nnunet.checkpoints import RESUMABLE, load_checkpoint
from nnunetv2_levit.nnunet.configurations import add_configuration

DATASET_ID, CONFIGURATION, EPOCHS = 27, "2d_p48x40", 6
TRAINER = "KilledTrainer"
TRAINER_FILE = f"""
import torch
from nnunetv2_levit.trainers import trainer_class

class {TRAINER}(trainer_class("LeViTUNetTrainer_128s_3iterations_{EPOCHS}epochs")):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.save_every = 2
"""
IN_PLACE = ("plans.json", "dataset.json", "dataset_fingerprint.json", "fold_*/debug.json", "fold_*/progress.png")


def prepare(work: Path) -> Path:
    """Phantom dataset, planned and preprocessed, and this process's environment; returns nnU-Net's results folder."""
    (work / "trainer").mkdir(parents=True)
    (work / "trainer" / "killed_trainer.py").write_text(TRAINER_FILE)
    os.environ |= {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    os.environ |= {"nnUNet_extTrainer": str(work / "trainer"), "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    source = write_phantom(work / "source", patients=5, size=56, slices=2)
    convert("acdc", source=source, dataset_id=DATASET_ID)
    plan = [Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess"), "-d", str(DATASET_ID), "-c", "2d"]
    subprocess.run([*plan, "-np", "1", "-npfp", "1"], check=True, stdout=subprocess.DEVNULL)
    add_configuration(dataset_id=DATASET_ID, base="2d", patch_size=(48, 40), batch_size=2)
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # planning needs one, a training augments in its own process
    return work / "results"


def start(fold: int, log: Path, *flags: str) -> int:
    """Fork a process (and group) that trains; returns its id."""
    from nnunetv2.run import run_training

    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    with log.open("w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads = lambda _: None  # nnU-Net would take all cores
    words = [str(DATASET_ID), CONFIGURATION, str(fold), "-tr", TRAINER, "-device", "cpu", *flags]
    sys.argv = ["nnUNetv2_train", *words]
    code = 1
    try:
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        run_training.run_training_entry()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int) -> int | None:
    """Exit code of a child that has ended."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait_and_kill(pid: int, folder: Path, *, seconds: float, writing: bool) -> bool:
    """SIGKILL after ``seconds``, with ``writing`` at the next moment at which a checkpoint is half written.

    Returns false where the training ended before.
    """
    begin = time.monotonic()
    while True:
        if ended(pid) is not None:
            return False
        due = time.monotonic() - begin >= seconds
        if due and (not writing or any(file.stat().st_size for file in existing(folder.glob("*.partial")))):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
        time.sleep(0.002)


def existing(paths) -> list[Path]:
    return [path for path in paths if path.exists()]


def expected_epoch(folder: Path) -> int:
    """Where a resume must go on: the furthest epoch of the complete checkpoints; 0 without any."""
    names = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
    epochs = [
        load_checkpoint(folder / name, keys=RESUMABLE, mmap=True)["current_epoch"]
        for name in names
        if (folder / name).is_file()
    ]
    return max(epochs, default=0)


def first_epoch(log: Path) -> int | None:
    """The first epoch that a training's output names; EPOCHS where none was left; None where it did not get there."""
    text = log.read_text()
    if found := re.search(r"^(?:.*: )?Epoch (\d+)\s*$", text, re.MULTILINE):
        return int(found[1])
    return EPOCHS if "Training done" in text else None


def cut_in_half(model: Path) -> None:
    """What a kill leaves of files that are written in place."""
    for pattern in IN_PLACE:
        for path in model.glob(pattern):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def check_result(folder: Path, rates: list[float]) -> None:
    """The finished training's log is that of an undisturbed one."""
    final = load_checkpoint(folder / "checkpoint_final.pth", keys=RESUMABLE)
    assert final["current_epoch"] == EPOCHS, final["current_epoch"]
    lengths = {name: len(values) for name, values in final["logging"].items()}
    assert set(lengths.values()) == {EPOCHS}, lengths
    assert final["logging"]["lrs"] == rates, final["logging"]["lrs"]
    assert not list(folder.glob("*.partial"))
    assert not (folder / "checkpoint_latest.pth").exists()
    load_checkpoint(folder / "checkpoint_best.pth", keys=RESUMABLE)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        json.loads((folder.parent / name).read_text())
    assert (folder / "validation" / "summary.json").is_file()


def finish(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the training failed; see the newest log"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the counts")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    work = options.work.resolve()
    results = prepare(work)
    dataset = next((work / "raw").glob("Dataset*")).name
    model = results / dataset / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}"
    count = SimpleNamespace(runs=0, kills=0, writing=0, resumes=0, trainings=0, anew=0)

    def run(fold: int, *flags: str) -> tuple[int, Path]:
        count.runs += 1
        log = work / f"run_{count.runs:03d}.txt"
        return start(fold, log, *flags), log

    begin = time.monotonic()
    pid, _ = run(4)
    finish(pid)
    duration = time.monotonic() - begin
    rates = load_checkpoint(model / "fold_4" / "checkpoint_final.pth", keys=RESUMABLE)["logging"]["lrs"]

    bar = tqdm(total=options.kills, desc="kills")
    while count.kills < options.kills:
        fold = count.trainings
        folder = model / f"fold_{fold}"
        pid, log = run(fold)
        flags: tuple[str, ...] = ()
        for _ in range(min(chance.randint(3, 5), options.kills - count.kills)):
            writing = count.kills % 3 == 1
            # most of the time is the final validation, and a resumed run is short: early moments are the likelier ones
            seconds = duration * chance.random() ** 3
            target = expected_epoch(folder) if flags else 0
            killed = wait_and_kill(pid, folder, seconds=seconds, writing=writing)
            begun = first_epoch(log)
            assert begun in (None, target), f"{log}: went on from epoch {begun}, not {target}"
            count.resumes += bool(flags) and begun is not None
            if not killed:
                assert begun is not None, f"{log}: the training failed"
                break
            count.kills += 1
            count.writing += writing
            bar.update()
            if count.kills % 3 == 0:
                cut_in_half(model)
            count.anew += expected_epoch(folder) == 0
            flags = ("--c",)
            pid, log = run(fold, *flags)
        else:
            target = expected_epoch(folder)
            finish(pid)
            assert first_epoch(log) == target, f"{log}: went on from epoch {first_epoch(log)}, not {target}"
            count.resumes += 1
        check_result(folder, rates)
        count.trainings += 1
    bar.close()
    if options.output is not None:
        options.output.write_text(json.dumps(vars(count), indent=1) + "\n")
    print(
        f"{count.kills} kills in {count.trainings} trainings ({count.writing} while a checkpoint was written, "
        f"{count.anew} before the first one was whole), {count.resumes} resumes that went on from the newest complete "
        f"checkpoint; each training ended with {EPOCHS} epochs and the learning rates of an undisturbed one, and left "
        "no partial file"
    )


if __name__ == "__main__":
    main()
