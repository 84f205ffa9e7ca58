"""The study's file: what is compared, on which data, and what computes it. Read and checked as a whole."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_levit.nnunet.environment import NNUNET_FOLDERS, dataset_folder
from nnunetv2_levit.study.toml_tables import Table, at_least, distinct, read_toml, refuse_file

EXECUTORS = ("local", "slurm", "print")
METRICS = ("dice", "hd95", "asd", "nsd")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Test:
    """Images that no fold was trained on, and their labels where there are any."""

    images: Path
    labels: Path | None = None


@dataclass(frozen=True)
class Prediction:
    """Flags of the prediction of the test images; ``parts`` are predicted independently of one another."""

    parts: int = 1
    step_size: float = 0.5
    mirroring: bool = True
    save_probabilities: bool = False
    preprocessing_workers: int = 3
    exporting_workers: int = 3


@dataclass(frozen=True)
class Evaluation:
    """What is measured; see `evaluation.evaluate.evaluate`. ``metrics`` are those of the page's first table."""

    metrics: tuple[str, ...] = ("dice", "hd95")
    tolerance: float = 2.0
    protocol: str | None = None
    patient_pattern: str | None = None
    paper_dataset: str | None = None
    workers: int = 4


@dataclass(frozen=True)
class Local:
    """Devices of this machine; one that is named twice trains two at a time."""

    devices: tuple[str, ...] = ("cuda:0",)


@dataclass(frozen=True)
class Slurm:
    """Resources of one training. ``array_limit`` is how many run at once, ``array_size`` the cluster's MaxArraySize."""

    partition: str | None = None
    gpus: int = 1
    cpus: int = 8
    memory_gb: float = 32
    time_minutes: int = 24 * 60
    array_limit: int = 16
    array_size: int = 1000
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    seconds_per_epoch: float | None = None
    setup: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A parsed file. Relative paths in it are relative to the file's folder."""

    file: Path
    name: str
    folder: Path
    dataset: str
    configurations: tuple[str, ...]
    trainers: tuple[str, ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    reference: str
    plans: str = "nnUNetPlans"
    executor: str = "local"
    scheduler: str = "sbatch"
    names: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    test: Test | None = None
    prediction: Prediction = Prediction()
    evaluation: Evaluation = Evaluation()
    local: Local = Local()
    slurm: Slurm = Slurm()

    @property
    def gpus(self) -> int:
        """GPUs of one training."""
        return 1 if self.executor == "local" else max(1, self.slurm.gpus)


def load_study(file: str | Path, *, executor: str | None = None) -> Study:
    """Read a study's file and check everything that it says by itself; nothing is started or written.

    Args:
        executor: use this one whatever the file says.

    Raises:
        UserError: no such file, no TOML, or a key or value that is missing, unknown or impossible.
    """
    file = Path(file).resolve()
    content = read_toml(file)
    tables = {name: Table(file, name, content.pop(name, {})) for name in _TABLES}
    if content:
        raise refuse_file(file, f"has the unknown table [{min(content)}]; tables are {', '.join(_TABLES)}")
    settings = {name: build(tables[name]) for name, build in _TABLES.items()}
    general = settings.pop("study")
    chosen = settings.pop("executor")
    if executor is not None:
        chosen["executor"] = executor
    study = Study(file=file, **general, **chosen, **settings)
    for table in tables.values():
        table.nothing_left()
    return study


def _study(table: Table) -> dict[str, Any]:
    file = table.file
    dataset = table.content.pop("dataset", None)
    if isinstance(dataset, bool) or not isinstance(dataset, int | str):
        raise table.refuse(f"dataset must be nnU-Net's number or name of it, not {dataset!r}")
    result = {
        "name": table.take("name", "str", file.stem),
        "folder": table.path("folder", file.with_suffix("")),
        "configurations": table.texts("configurations", ["2d"]),
        "trainers": table.texts("trainers"),
        "folds": table.numbers("folds", range(5)),
        "seeds": table.numbers("seeds", [0]),
        "plans": table.take("plans", "str", "nnUNetPlans"),
    }
    result["reference"] = table.take("reference", "str", result["trainers"][0])
    for key in ("configurations", "trainers", "folds", "seeds"):
        distinct(table, key, result[key])
    for name in (*result["configurations"], *result["trainers"], result["plans"]):
        if NAME.fullmatch(name) is None or "__" in name:
            raise table.refuse(f"names {name!r}, which is no name of a trainer, configuration or plans")
    if result["reference"] not in result["trainers"]:
        raise table.refuse(f"the reference {result['reference']!r} is not one of the trainers: name one of them")
    if result["folder"] == file or (result["folder"].exists() and not result["folder"].is_dir()):
        raise table.refuse(f"folder names {result['folder']}, which is a file: name a folder")
    table.nothing_left([*result, "dataset"])
    advice = "check [study] dataset, or plan and preprocess that dataset first"
    result["dataset"] = dataset_folder("nnUNet_preprocessed", dataset, advice=f"{advice} ({file})").name
    return result


def _texts_by_name(table: Table) -> dict[str, str]:
    result = {}
    for key in list(table.content):
        value = table.content.pop(key)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise table.refuse(f"{key} must be a text, not {value!r}")
        result[key] = str(value)
    return result


def _environment(table: Table) -> dict[str, str]:
    result = _texts_by_name(table)
    for name in NNUNET_FOLDERS:
        if name in result:
            why = "a study keeps results of its own" if name == "nnUNet_results" else "export it as for nnU-Net"
            raise table.refuse(f"can't set {name}: {why}")
    return result


def _test(table: Table) -> Test | None:
    images, labels = table.path("images"), table.path("labels")
    if images is None and labels is not None:
        raise table.refuse("has labels and no images: add images")
    return None if images is None else Test(images, labels)


def _prediction(table: Table) -> Prediction:
    result = table.dataclass(Prediction)
    at_least(table, result, parts=1, preprocessing_workers=0, exporting_workers=0)
    if not 0 < result.step_size <= 1:
        raise table.refuse(f"step_size must be more than 0 and at most 1, not {result.step_size}")
    return result


def _evaluation(table: Table) -> Evaluation:
    result = table.dataclass(Evaluation)
    at_least(table, result, tolerance=0, workers=1)
    distinct(table, "metrics", result.metrics)
    for metric in result.metrics:
        if metric not in METRICS:
            raise table.refuse(f"metrics names {metric!r}: choose among {', '.join(METRICS)}")
    return result


def _local(table: Table) -> Local:
    result = table.dataclass(Local)
    for device in result.devices:
        if re.fullmatch(r"cpu|mps|cuda(:\d+)?", device) is None:
            raise table.refuse(f"devices names {device!r}: write cuda:0, cuda:1 and so on, cpu or mps")
    return result


def _slurm(table: Table) -> Slurm:
    result = table.dataclass(Slurm)
    at_least(table, result, gpus=0, cpus=1, time_minutes=1, array_limit=1, array_size=1, seconds_per_epoch=0.001)
    if not 0 < result.memory_gb < math.inf:
        raise table.refuse(f"memory_gb must be a number above 0, not {result.memory_gb}")
    return result


def _executor(table: Table) -> dict[str, str]:
    result = {
        "executor": table.take("kind", "str", "local"),
        "scheduler": table.take("scheduler", "str", "sbatch"),
    }
    if result["executor"] not in EXECUTORS:
        raise table.refuse(f"kind must be one of {', '.join(EXECUTORS)}, not {result['executor']!r}")
    if result["scheduler"] not in ("sbatch", "bsub"):
        raise table.refuse(f"scheduler must be sbatch or bsub, not {result['scheduler']!r}")
    return result


_TABLES: dict[str, Callable[[Table], Any]] = {
    "study": _study,
    "names": _texts_by_name,
    "environment": _environment,
    "test": _test,
    "prediction": _prediction,
    "evaluation": _evaluation,
    "executor": _executor,
    "local": _local,
    "slurm": _slurm,
}


def job_environment(study: Study, *, seed: int) -> dict[str, str]:
    """Environment of a job: this process's, the file's, and where trainings of ``seed`` keep their results."""
    from nnunetv2_levit.nnunet.environment import VARIABLE, with_plugin
    from nnunetv2_levit.study.jobs import NONE, results_folder

    environment = {**os.environ, **study.environment}
    environment[VARIABLE] = with_plugin(environment.get(VARIABLE))
    if seed != NONE:
        environment["nnUNet_results"] = str(results_folder(study, seed))
        environment["nnUNet_levit_seed"] = str(seed)
    return environment
