"""What a study consists of: trainings, predictions, evaluations and the report, with their files and order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunetv2_levit.study.file import Study

KINDS = ("train", "predict", "evaluate", "report")
NONE = -1


@dataclass(frozen=True)
class Model:
    """What is compared: a trainer with a configuration."""

    trainer: str
    configuration: str

    def folder_name(self, plans: str) -> str:
        """nnU-Net's name of its folder."""
        return f"{self.trainer}__{plans}__{self.configuration}"


ALL_MODELS = Model("", "")
"""The model of a job that is of all of them, such as the report."""


@dataclass(frozen=True)
class Job:
    """One program to run. ``model`` is `ALL_MODELS`, and a number `NONE`, where its kind has no such thing."""

    kind: str
    model: Model = ALL_MODELS
    seed: int = NONE
    fold: int = NONE
    part: int = NONE

    @cached_property
    def id(self) -> str:
        """A name that is also a file name, such as ``train-LeViTUNetTrainer-2d-seed0-fold1``."""
        words = [self.kind]
        if self.model != ALL_MODELS:
            words += [self.model.trainer, self.model.configuration]
        words += [
            f"{word}{number}"
            for word, number in (("seed", self.seed), ("fold", self.fold), ("part", self.part))
            if number != NONE
        ]
        return "-".join(words)


def models_of(study: Study) -> list[Model]:
    """All models, those of the reference trainer first."""
    trainers = sorted(study.trainers, key=lambda trainer: trainer != study.reference)
    return [Model(trainer, configuration) for trainer in trainers for configuration in study.configurations]


def model_name(study: Study, model: Model) -> str:
    """How tables call a model: the file's name for its trainer, and the configuration where there are several."""
    name = study.names.get(model.trainer, model.trainer)
    return name if len(study.configurations) == 1 else f"{name}, {model.configuration}"


def trainings_of(study: Study, model: Model, seed: int) -> list[Job]:
    return [Job("train", model, seed, fold=fold) for fold in study.folds]


def predictions_of(study: Study, model: Model, seed: int) -> list[Job]:
    if study.test is None:
        return []
    return [Job("predict", model, seed, part=part) for part in range(study.prediction.parts)]


def _jobs(study: Study) -> Iterator[Job]:
    pairs = [(model, seed) for seed in study.seeds for model in models_of(study)]
    # seed after seed and fold after fold: a study that is interrupted has compared what it has finished
    for seed in study.seeds:
        for fold in study.folds:
            yield from (Job("train", model, seed, fold=fold) for model in models_of(study))
    for model, seed in pairs:
        yield from predictions_of(study, model, seed)
    for model, seed in pairs:
        yield Job("evaluate", model, seed)
    yield Job("report")


def jobs_of(study: Study) -> dict[str, Job]:
    """All jobs by id, in the order in which they are started."""
    return {job.id: job for job in _jobs(study)}


def needs(study: Study, job: Job) -> list[Job]:
    """The jobs whose results a job reads."""
    match job.kind:
        case "predict":
            return trainings_of(study, job.model, job.seed)
        case "evaluate":
            return [*trainings_of(study, job.model, job.seed), *predictions_of(study, job.model, job.seed)]
        case "report":
            return [Job("evaluate", model, seed) for model in models_of(study) for seed in study.seeds]
    return []


# where things are -----------------------------------------------------------------------------------------------------


def results_folder(study: Study, seed: int) -> Path:
    """The ``nnUNet_results`` of a seed: nnU-Net has one folder a trainer and fold."""
    return study.folder / "nnUNet_results" / f"seed_{seed}"


def model_folder(study: Study, model: Model, seed: int) -> Path:
    return results_folder(study, seed) / study.dataset / model.folder_name(study.plans)


def fold_folder(study: Study, job: Job) -> Path:
    return model_folder(study, job.model, job.seed) / f"fold_{job.fold}"


def prediction_folder(study: Study, model: Model, seed: int) -> Path:
    return study.folder / "predictions" / f"seed_{seed}" / model.folder_name(study.plans)


def evaluation_folder(study: Study, model: Model, seed: int) -> Path:
    """Holds ``validation`` and, where there are test labels, ``test``."""
    return study.folder / "evaluations" / f"seed_{seed}" / model.folder_name(study.plans)


def report_folder(study: Study) -> Path:
    return study.folder / "report"


def log_file(study: Study, job: Job) -> Path:
    return study.folder / "logs" / f"{job.id}.txt"


def lock_file(study: Study, job: Job) -> Path:
    return study.folder / "locks" / f"{job.id}.lock"


def attempts_file(study: Study, job: Job) -> Path:
    return study.folder / "attempts" / f"{job.id}.jsonl"
