"""With which settings a result was made: noted beside it, so that a result of other settings counts as not made."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import Job, evaluation_folder, prediction_folder


def _relative(study: Study, path: Path | None) -> str | None:
    """So that a study that is moved with its data stays the same."""
    return None if path is None else os.path.relpath(path, study.file.parent)


def _settings(study: Study, job: Job, cases: Sequence[str]) -> dict[str, Any]:
    """What of the study's file, and which test ``cases``, decide what a prediction or an evaluation holds."""
    settings: dict[str, Any] = {"folds": list(study.folds)}
    if study.test is not None:
        settings |= {"images": _relative(study, study.test.images), "cases": list(cases)}
    if job.kind == "predict":
        asked = study.prediction
        return settings | {"parts": asked.parts, "step_size": asked.step_size, "mirroring": asked.mirroring}
    if study.test is not None:
        settings["labels"] = _relative(study, study.test.labels)
    keys = ("tolerance", "protocol", "patient_pattern")
    return settings | {key: getattr(study.evaluation, key) for key in keys}


def _file(study: Study, job: Job) -> Path:
    if job.kind == "predict":
        return prediction_folder(study, job.model, job.seed) / f"settings_part{job.part}.json"
    return evaluation_folder(study, job.model, job.seed) / "settings.json"


def keep_settings(study: Study, job: Job, cases: Sequence[str]) -> None:
    """Note them beside a result, once it is whole."""
    write_json(_file(study, job), _settings(study, job, cases))


def made_with_these_settings(study: Study, job: Job, cases: Sequence[str]) -> bool:
    """Whether a result was made of these cases, with what the study's file says now; true where nothing was noted."""
    file = _file(study, job)
    if not file.is_file():
        return not any(file.parent.glob("settings_part*.json"))  # else another division of the images was noted
    try:
        kept = read_json(file, what="the settings of a study's result")
    except UserError:
        return False
    return bool(kept == _settings(study, job, cases))
