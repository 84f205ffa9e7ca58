"""Jobs of a study that write the files of real ones and compute nothing; `fake_site` puts them in place.

Environment: FAKE_EPOCHS, FAKE_SECONDS an epoch; FAKE_FAILS and FAKE_KILLED are parts of the ids of jobs that raise, or
that kill themselves in their second epoch at the first attempt.
"""

import json
import os
import signal
import time
from datetime import datetime

from nnunetv2_levit.errors import TrainingStoppedError
from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.jobs import attempts_file, evaluation_folder, fold_folder, prediction_folder, report_folder
from nnunetv2_levit.study.state import test_cases, test_files

VARIABLE = "nnUNet_levit_seed"
asked = []


def wanted(variable, job):
    value = os.environ.get(variable, "")
    return bool(value) and value in job.id


def train(study, job, device):
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, _: asked.append(number))
    if wanted("FAKE_FAILS", job):
        raise RuntimeError("CUDA out of memory")
    fold = fold_folder(study, job)
    fold.mkdir(parents=True, exist_ok=True)
    latest = fold / "checkpoint_latest.pth"
    done = json.loads(latest.read_text()) if latest.exists() else []
    epochs = int(os.environ.get("FAKE_EPOCHS", "2"))
    (fold / "study_training.json").write_text(json.dumps({"epochs": epochs, "parameters": 1000, "seed": job.seed}))
    with (fold / f"training_log_{os.getpid()}.txt").open("a") as log:
        for epoch in range(len(done), epochs):
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
            done.append(f"epoch {epoch} of seed {os.environ[VARIABLE]}")
            for line in (
                f"Epoch {epoch}",
                "train_loss 0.5",
                "val_loss 0.5",
                "Pseudo dice [0.5, nan]",
                "Epoch time: 2.0 s",
            ):
                log.write(f"{datetime.now()}: {line} \n")
            log.flush()
            partial = fold / "partial"
            partial.write_text(json.dumps(done))
            partial.replace(latest)
            attempts.saved(attempts_file(study, job))
            if epoch == 1 and wanted("FAKE_KILLED", job) and not (fold / "killed").exists():
                (fold / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if asked and len(done) < epochs:
                raise TrainingStoppedError("stopped as asked")
    latest.replace(fold / "checkpoint_final.pth")
    (fold / "validation").mkdir(exist_ok=True)
    (fold / "validation" / "summary.json").write_text('{\n    "mean": {}\n}')


def predict(study, job, device):
    folder = prediction_folder(study, job.model, job.seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in test_files(study, job, test_cases(study)):
        (folder / name).touch()


def evaluate(study, job, device):
    for kind in ("validation", "test"):
        folder = evaluation_folder(study, job.model, job.seed) / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text("{}")


def report(study, job, device):
    report_folder(study).mkdir(parents=True, exist_ok=True)
    (report_folder(study) / "report.html").write_text("the page")


TASKS = {"train": train, "predict": predict, "evaluate": evaluate, "report": report}
