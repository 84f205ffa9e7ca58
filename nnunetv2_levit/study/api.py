"""The study's commands as functions that return data."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.study.check import check, write_splits
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import KINDS, Model, log_file, model_name
from nnunetv2_levit.study.state import DONE, FAILED, State, StudyFiles
from nnunetv2_levit.study.study_status import StudyStatus, study_status


@dataclass(frozen=True)
class Plan:
    """What a study consists of, what of it is done, and what its trainings are expected to take.

    Attributes:
        parameters: of each model's network; None where it could not be built.
        states: of all jobs, by id.
        gpu_hours: of the trainings to come, where epochs were measured or the file says their seconds.
    """

    study: Study
    parameters: dict[Model, int | None]
    states: dict[str, State]
    gpu_hours: float | None

    def counts(self) -> dict[str, tuple[int, int]]:
        """Jobs and done jobs of each kind."""
        total = Counter(state.job.kind for state in self.states.values())
        done = Counter(state.job.kind for state in self.states.values() if state.name == DONE)
        return {kind: (total[kind], done[kind]) for kind in KINDS if total[kind]}

    def as_data(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return {
            "study": self.study.name,
            "file": str(self.study.file),
            "folder": str(self.study.folder),
            "executor": self.study.executor,
            "models": [
                {"name": model_name(self.study, model), "trainer": model.trainer, "configuration": model.configuration}
                | {"parameters": parameters}
                for model, parameters in self.parameters.items()
            ],
            "jobs": {kind: {"all": total, "done": done} for kind, (total, done) in self.counts().items()},
            "gpu_hours": self.gpu_hours,
            "states": {name: state.name for name, state in self.states.items()},
        }

    def text(self) -> str:
        """For a person."""
        study = self.study
        lines = [
            f"{study.name}: {study.dataset}, {len(self.parameters)} models x {len(study.folds)} folds x "
            f"{len(study.seeds)} seeds, in {study.folder}",
        ]
        for model, parameters in self.parameters.items():
            size = "" if parameters is None else f", {parameters / 1e6:.1f} M parameters"
            reference = " (the reference)" if model.trainer == study.reference else ""
            lines.append(f"  {model_name(study, model)}{reference}{size}")
        for kind, (total, done) in self.counts().items():
            lines.append(f"{kind:>9}: {total:>5} jobs, {done} done")
        if self.gpu_hours is not None:
            lines.append(f"trainings to come: about {self.gpu_hours:.1f} device hours")
        return "\n".join(lines)


def plan(study: Study) -> Plan:
    """Check a study as a whole and say what it consists of; starts and writes nothing.

    Raises:
        UserError: see `check.check`.
    """
    from nnunetv2_levit.study.time_limits import hours_to_come

    states = StudyFiles(study).states()
    facts = check(study, states)
    return Plan(
        study,
        {model: known.parameters for model, known in facts.items()},
        states,
        hours_to_come(study, states, facts),
    )


def run(study: Study, *, say: Callable[[str], None] = print) -> dict[str, State]:
    """Do what is missing: on this machine until it is done, or by submitting it to Slurm; returns the jobs' states.

    The executor ``print`` says the lines that submit the jobs, and does nothing.

    Raises:
        UserError: see `check.check`; or Slurm or submitit is not to be had.
    """
    from nnunetv2_levit.study.local_queue import LocalQueue

    states = StudyFiles(study).states(progress=False)
    facts = check(study, states)
    if study.executor == "print":
        from nnunetv2_levit.study.scheduler_lines import submission_lines

        for line in submission_lines(study, states, facts):
            say(line)
        return states
    if study.executor == "slurm":
        from nnunetv2_levit.study.slurm import require_slurm, submit

        require_slurm()
        _prepare(study)
        submit(study, facts, say=say)
        return StudyFiles(study).states()
    _prepare(study)
    return LocalQueue(study, say=say).run()


def _prepare(study: Study) -> None:
    write_splits(study)
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{study.folder} can't be made ({error.strerror}): choose another [study] folder") from None


def failures(study: Study, states: dict[str, State]) -> list[str]:
    """A line for each job that failed: which, why, and where its log is."""
    return [
        f"{state.job.id} failed: {state.why} (log: {log_file(study, state.job)})"
        for state in states.values()
        if state.name == FAILED
    ]


def status(study: Study) -> StudyStatus:
    """What every job is doing, from its files and, on Slurm, ``squeue``."""
    return study_status(study)


def report(study: Study) -> Path:
    """Write the page from what is there: predictions and evaluations that are missing are left to `run`.

    Raises:
        UserError: no model has been evaluated for all its folds yet.
    """
    from nnunetv2_levit.study.products import evaluate
    from nnunetv2_levit.study.study_report import write_study_report

    states = StudyFiles(study).states(progress=False)
    for state in states.values():
        if state.job.kind == "evaluate" and state.name not in (DONE, "blocked"):
            from nnunetv2_levit.study.jobs import needs

            if all(states[other.id].name == DONE for other in needs(study, state.job)):
                evaluate(study, state.job)
    return write_study_report(study)


def cancel(study: Study, *, now: bool = False) -> list[str]:
    """Stop what runs after its epoch and what waits at once; with ``now``, kill it. Returns what was told so.

    `run` goes on where a cancelled study was.
    """
    from nnunetv2_levit.study.cancelling import cancel as stop

    return stop(study, now=now)


def init(dataset: str | int, output: str | Path = "study.toml") -> Path:
    """Write a commented study for a preprocessed dataset.

    Raises:
        UserError: no such dataset, or the file exists.
    """
    from nnunetv2_levit.study.template import write_template

    return write_template(dataset, Path(output))
