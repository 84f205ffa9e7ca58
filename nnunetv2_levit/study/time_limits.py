"""Times from measured epochs: hours to come, how early to ask a training to stop, how often to start it again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.study.check import ModelFacts
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import Model, fold_folder
from nnunetv2_levit.study.progress import read_facts
from nnunetv2_levit.study.state import State

UNMEASURED_SECONDS = 300.0
"""Assumed of an epoch that nobody has measured: nnU-Net's are 10 s (2D, H200) to some minutes (3D, older GPUs)."""
USUAL_EPOCHS = 1000
SAVING_SECONDS = 60.0
"""For the rest of a batch, writing a checkpoint over a network, and Slurm, which may signal a minute late."""
SHORTEST_WARNING = 30.0


def seconds_per_epoch(study: Study, states: Mapping[str, State]) -> dict[Model, float]:
    """Median over each model's trainings that have finished epochs; else what the file says, if it does."""
    measured: dict[Model, list[float]] = {}
    for state in states.values():
        if state.job.kind == "train" and state.progress.seconds_per_epoch is not None:
            measured.setdefault(state.job.model, []).append(state.progress.seconds_per_epoch)
    result = {model: median(values) for model, values in measured.items()}
    said = study.slurm.seconds_per_epoch
    if said is not None:
        for state in states.values():
            if state.job.kind != "report":
                result.setdefault(state.job.model, said)
    return result


def epochs_of(study: Study, state: State, facts: Mapping[Model, ModelFacts]) -> int:
    """How many epochs a training has in all."""
    noted = read_facts(fold_folder(study, state.job)).get("epochs")
    known = facts[state.job.model].epochs if state.job.model in facts else None
    return noted or known or USUAL_EPOCHS


def hours_to_come(study: Study, states: Mapping[str, State], facts: Mapping[Model, ModelFacts]) -> float | None:
    """Device hours of all epochs to come; None where a model's epochs were never measured."""
    seconds = seconds_per_epoch(study, states)
    total = 0.0
    for state in states.values():
        if state.job.kind != "train" or state.made is not None:
            continue
        if state.job.model not in seconds:
            return None
        left = max(0, epochs_of(study, state, facts) - state.progress.epochs_done)
        total += left * seconds[state.job.model] * study.gpus
    return total / 3600


@dataclass(frozen=True)
class Limits:
    """Of one training on Slurm.

    Attributes:
        warning_seconds: how long before the time limit Slurm sends the signal.
        restarts: how often the job may be requeued because of the limit.
    """

    warning_seconds: int
    restarts: int


def limits_of(study: Study, model: Model, epochs: int, seconds: float | None) -> Limits:
    """From the seconds of an epoch (assumed where None): one epoch and a half, and time to save.

    Raises:
        UserError: the time limit is too short for an epoch.
    """
    limit = 60.0 * study.slurm.time_minutes
    epoch = UNMEASURED_SECONDS if seconds is None else seconds
    warning = min(max(1.5 * epoch + SAVING_SECONDS, SHORTEST_WARNING), limit / 2)
    if warning < epoch and seconds is not None:
        raise UserError(
            f"{study.file}: [slurm] time_minutes is {study.slurm.time_minutes}, and an epoch of {model.trainer} takes "
            f"{epoch:.0f} s: give at least {math.ceil(4 * epoch / 60)} minutes"
        )
    # twice what the epochs need: starting, preemption and slower nodes take their share
    restarts = math.ceil(2 * epochs * epoch / (limit - warning)) + 3
    return Limits(warning_seconds=int(warning), restarts=restarts)


def limits_by_model(
    study: Study, states: Mapping[str, State], facts: Mapping[Model, ModelFacts]
) -> dict[Model, Limits]:
    """Time limits' consequences for each model, from its measured seconds per epoch.

    Raises:
        UserError: the time limit is too short for an epoch.
    """
    seconds = seconds_per_epoch(study, states)
    result: dict[Model, Limits] = {}
    for state in states.values():
        if state.job.kind == "train" and state.job.model not in result:
            model = state.job.model
            result[model] = limits_of(study, model, epochs_of(study, state, facts), seconds.get(model))
    return result


def longest(limits: Mapping[Model, Limits]) -> Limits:
    """The earliest warning and the most restarts, for jobs of no model's own."""
    if not limits:
        return Limits(warning_seconds=int(SAVING_SECONDS), restarts=3)
    return Limits(
        warning_seconds=max(one.warning_seconds for one in limits.values()),
        restarts=max(one.restarts for one in limits.values()),
    )
