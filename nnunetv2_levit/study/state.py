"""What state each job is in, found from files: nothing is remembered that a file does not say."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import (
    Job,
    attempts_file,
    evaluation_folder,
    fold_folder,
    jobs_of,
    lock_file,
    log_file,
    needs,
    prediction_folder,
    report_folder,
)
from nnunetv2_levit.study.kept_settings import made_with_these_settings
from nnunetv2_levit.study.locks import holder_of
from nnunetv2_levit.study.progress import CHECKPOINTS, FINAL, Progress, last_line, read_progress, validated

DONE, RUNNING, QUEUED, INTERRUPTED, FAILED, BLOCKED, WAITING = (
    "done",
    "running",
    "queued",
    "interrupted",
    "failed",
    "blocked",
    "waiting",
)
STATES = (DONE, RUNNING, QUEUED, INTERRUPTED, FAILED, BLOCKED, WAITING)


@dataclass(frozen=True)
class State:
    """A job's state; ``where`` it runs, or ``why`` it failed or is blocked; ``made`` is the time of its result."""

    job: Job
    name: str
    made: float | None = None
    where: str | None = None
    why: str | None = None
    attempts: int = 0
    progress: Progress = field(default_factory=Progress)


def _names(folder: Path) -> frozenset[str]:
    """Names in a folder; nothing where there is no such folder."""
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (a third of the time of iterdir, for 10 000 folders)
    except OSError:
        return frozenset()


class StudyFiles:
    """The files of a study at one moment; listings that several jobs need are made once."""

    def __init__(self, study: Study, queued: Mapping[str, str] | None = None) -> None:
        """``queued``: from a job's id to what the cluster says of it (see `slurm.queued_jobs`)."""
        self.study = study
        self.queued = queued or {}
        self._listed: dict[Path, frozenset[str]] = {}
        self._names_of_all: frozenset[str] | None = None  # of locks and attempts, where all jobs are looked at
        self._cases: tuple[list[str], str] | None = None
        self._newest: dict[Path, float] = {}

    def _in(self, folder: Path) -> frozenset[str]:
        if folder not in self._listed:
            self._listed[folder] = _names(folder)
        return self._listed[folder]

    def _may_exist(self, file: Path) -> bool:
        return self._names_of_all is None or file.name in self._names_of_all

    def made(self, job: Job) -> float | None:
        """When a job's result was made: the time of its oldest file; None where something is missing, was made with
        other settings than the study's, or is older than a test image (or label) that it was made of."""
        if job.kind in ("predict", "evaluate"):
            cases = self.test_cases()[0] if self.study.test is not None else ()
            if not made_with_these_settings(self.study, job, cases):
                return None
        match job.kind:
            case "train":
                return self._made_training(fold_folder(self.study, job))
            case "predict":
                return self._made_prediction(job)
            case "evaluate":
                folder = evaluation_folder(self.study, job.model, job.seed)
                files = [folder / "validation" / "evaluation.json"]
                if self.study.test is None or self.study.test.labels is None:
                    return _oldest(files)
                made = _oldest([*files, folder / "test" / "evaluation.json"])
                return self._unless_older_than(self.study.test.labels, made)
        return _oldest([report_folder(self.study) / "report.html"])

    def _made_training(self, fold: Path) -> float | None:
        if not {FINAL, "validation"} <= self._in(fold) or not validated(fold):
            return None
        made = (fold / "validation" / "summary.json").stat().st_mtime
        return made if made >= (fold / FINAL).stat().st_mtime else None  # else it is of the training before

    def _made_prediction(self, job: Job) -> float | None:
        folder = prediction_folder(self.study, job.model, job.seed)
        names = test_files(self.study, job, self.test_cases())
        if not names or not self._in(folder).issuperset(names):
            return None
        return self._unless_older_than(test_images(self.study), _oldest([folder / name for name in names]))

    def _unless_older_than(self, sources: Path, made: float | None) -> float | None:
        """When a result was made, None where a file of the folder that it was made of is newer."""
        if sources not in self._newest:
            times = [entry.stat().st_mtime for entry in os.scandir(sources)] if sources.is_dir() else []
            self._newest[sources] = max(times, default=0.0)
        return None if made is None or made < self._newest[sources] else made

    def test_cases(self) -> tuple[list[str], str]:
        """Names of the test cases, sorted, and their file ending."""
        if self._cases is None:
            self._cases = test_cases(self.study)
        return self._cases

    def progress(self, job: Job) -> Progress:
        """How far a training is."""
        if job.kind != "train":
            return Progress()
        fold = fold_folder(self.study, job)
        return read_progress([fold / name for name in self._in(fold) if name.startswith("training_log_")])

    def state(self, job: Job, upstream: Mapping[str, State], *, progress: bool = True) -> State:
        """One job's state, given those of the jobs that it needs."""
        needed = [upstream[other.id] for other in needs(self.study, job)]
        made = self.made(job)
        facts: dict[str, Any] = {"progress": self.progress(job)} if progress else {}
        lock = lock_file(self.study, job)
        if self._may_exist(lock) and (holder := holder_of(lock)) is not None:
            return State(job, RUNNING, where=str(holder), attempts=self._attempts(job), **facts)
        if made is not None and all(other.made is not None and other.made <= made for other in needed):
            return State(job, DONE, made=made, **facts)
        if job.kind == "report":
            # made of whatever could be evaluated: outdated by a newer evaluation, not by one that is missing
            newest = max((other.made for other in needed if other.made is not None), default=None)
            over = all(other.name in (DONE, FAILED, BLOCKED) for other in needed)
            if made is not None and newest is not None and newest <= made and over:
                return State(job, DONE, made=made, **facts)
        if job.id in self.queued:
            return State(job, QUEUED, where=self.queued[job.id], attempts=self._attempts(job), **facts)
        return self._idle_state(job, needed, facts)

    def _idle_state(self, job: Job, needed: list[State], facts: dict[str, Any]) -> State:
        several = self._several(job)
        broken = [other for other in needed if other.name in (FAILED, BLOCKED)]
        if broken and job.kind != "report":
            return State(job, BLOCKED, why=f"{broken[0].job.id} {broken[0].name}", **facts)
        if several and several[-1].outcome == attempts.FAILED:
            why = several[-1].reason or last_line(log_file(self.study, job))
            return State(job, FAILED, why=why, attempts=len(several), **facts)
        if (times := attempts.without_progress(several)) >= attempts.MOST_WITHOUT_PROGRESS:
            why = f"killed {times} times before it had saved anything (out of memory, or too short a time limit?)"
            return State(job, FAILED, why=why, attempts=len(several), **facts)
        begun = bool(several)
        if job.kind == "train" and not begun:
            begun = not self._in(fold_folder(self.study, job)).isdisjoint((*CHECKPOINTS, FINAL))
        return State(job, INTERRUPTED if begun else WAITING, attempts=len(several), **facts)

    def _several(self, job: Job) -> list[attempts.Attempt]:
        file = attempts_file(self.study, job)
        return attempts.attempts(file) if self._may_exist(file) else []

    def _attempts(self, job: Job) -> int:
        return len(self._several(job))

    def states(self, *, progress: bool = True) -> dict[str, State]:
        """All jobs' states by id."""
        self._names_of_all = _names(self.study.folder / "locks") | _names(self.study.folder / "attempts")
        result: dict[str, State] = {}
        for job in jobs_of(self.study).values():
            result[job.id] = self.state(job, result, progress=progress)
        return result


def _oldest(files: list[Path]) -> float | None:
    try:
        return min(file.stat().st_mtime for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return None


def description_of(study: Study) -> dict[str, Any]:
    """nnU-Net's description of the dataset.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = dataset_folder("nnUNet_preprocessed", study.dataset, advice="preprocess the dataset")
    return read_json(folder / "dataset.json", what="nnU-Net's dataset.json", schema=schemas.DATASET_WITH_IMAGES)


def test_images(study: Study) -> Path:
    """The folder of the test images, for jobs that a study without them does not have."""
    if study.test is None:
        raise ValueError("a study without test images has no such job")
    return study.test.images


def test_cases(study: Study) -> tuple[list[str], str]:
    """Names of the test cases and their file ending, from the folder and the dataset's description.

    Raises:
        UserError: no such folder, or no images of the dataset's kind in it.
    """
    ending = description_of(study)["file_ending"]
    images = test_images(study)
    if not images.is_dir():
        raise UserError(f"{study.file}: [test] images names {images}, which is not a folder")
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}")
    cases = sorted({match[1] for path in images.iterdir() if (match := pattern.fullmatch(path.name))})
    if not cases:
        raise UserError(f"{images} holds no images for this dataset: their names must end in _0000{ending}")
    return cases, ending


def test_files(study: Study, job: Job, cases: tuple[list[str], str]) -> list[str]:
    """Names of the files that a prediction job writes."""
    names, ending = cases
    part = names[job.part :: study.prediction.parts]
    endings = (ending, ".npz") if study.prediction.save_probabilities else (ending,)
    return [f"{name}{e}" for name in part for e in endings]
