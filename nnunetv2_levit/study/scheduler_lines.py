"""The lines that submit a study by hand: ``sbatch`` for Slurm or ``bsub`` for LSF. Nothing is run."""

import shlex
import sys
from collections.abc import Mapping, Sequence

from nnunetv2_levit.study.check import ModelFacts
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import ALL_MODELS, KINDS, Job, Model, needs
from nnunetv2_levit.study.state import BLOCKED, DONE, FAILED, INTERRUPTED, WAITING, State
from nnunetv2_levit.study.time_limits import Limits, limits_by_model, longest
from nnunetv2_levit.study.work import STOPPED


def _chunks(values: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _work(study: Study, jobs: Sequence[Job], index: str, prefix: str) -> str:
    """Shell that does the job of an array's index; ``prefix`` stands before the program."""
    names = " ".join(job.id for job in jobs)
    device = "cuda" if study.slurm.gpus else "cpu"
    python, file = shlex.quote(sys.executable), shlex.quote(str(study.file))
    work = f'{python} -m nnunetv2_levit.study {file} "${{jobs[{index}]}}"'
    return f"jobs=({names}); {prefix} {work} --device {device} --executor print"


def _sbatch(study: Study, name: str, jobs: Sequence[Job], limits: Limits, after: Sequence[str]) -> str:
    asked = study.slurm
    log = study.folder / "logs" / f"{name}_%a.out"
    words = [
        f"--job-name={study.name}-{name}",
        f"--array=0-{len(jobs) - 1}%{asked.array_limit}",
        f"--time={asked.time_minutes}",
        f"--cpus-per-task={asked.cpus}",
        f"--mem={round(asked.memory_gb * 1024)}M",
        f"--signal=USR2@{limits.warning_seconds}",
        "--requeue",
        "--open-mode=append",
        f"--output={log}",
    ]
    words += [
        f"--{flag}={value}"
        for flag in ("partition", "account", "qos", "constraint")
        if (value := getattr(asked, flag)) is not None
    ]
    if asked.gpus and jobs[0].kind in ("train", "predict"):
        words.append(f"--gpus-per-node={asked.gpus}")
    words += [f"--{key}" if value is True else f"--{key}={value}" for key, value in asked.extra.items()]
    # a cancelled job is not running any more when it has stopped: only the time limit's warning finds it so
    script = [
        *asked.setup,
        _work(study, jobs, "$SLURM_ARRAY_TASK_ID", "srun --unbuffered") + "; code=$?",
        'me="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
        f'if [ $code -eq {STOPPED} ] && [ "$(squeue -h -j $me -o %T)" = RUNNING ] && '
        f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {limits.restarts} ]; then scontrol requeue $me; fi',
        "exit $code",
    ]
    dependency = f" --dependency=afterany:{':'.join(f'${one}' for one in after)}" if after else ""
    flags = " ".join(shlex.quote(word) for word in words)
    wrapped = f"bash -c {shlex.quote('; '.join(script))}"  # Slurm runs what is wrapped by sh
    return f"{name}=$(sbatch --parsable{dependency} {flags} --wrap {shlex.quote(wrapped)})"


def _bsub(study: Study, name: str, jobs: Sequence[Job], limits: Limits, after: Sequence[str]) -> str:
    asked = study.slurm
    hours, minutes = divmod(asked.time_minutes, 60)
    words = [
        *("-J", f"{study.name}-{name}[1-{len(jobs)}]%{asked.array_limit}"),
        *("-W", f"{hours}:{minutes:02d}", "-n", str(asked.cpus)),
        *("-R", f"span[hosts=1] rusage[mem={round(asked.memory_gb * 1024)}]"),
        # the warning's signal, minutes before the limit; a job that ends with this exit code is queued again
        *("-wa", "USR2", "-wt", str(-(-limits.warning_seconds // 60)), "-Q", str(STOPPED), "-r"),
        *("-o", str(study.folder / "logs" / f"{name}_%I.out")),
    ]
    if asked.partition is not None:
        words += ["-q", asked.partition]
    if asked.gpus and jobs[0].kind in ("train", "predict"):
        words += ["-gpu", f"num={asked.gpus}"]
    if after:
        words += ["-w", " && ".join(f"ended({study.name}-{one})" for one in after)]
    script = "; ".join([*asked.setup, _work(study, jobs, "$((LSB_JOBINDEX - 1))", "exec")])
    return f"bsub {' '.join(shlex.quote(word) for word in words)} {shlex.quote(f'bash -c {shlex.quote(script)}')}"


def submission_lines(study: Study, states: Mapping[str, State], facts: Mapping[Model, ModelFacts]) -> list[str]:
    """One line an array of jobs that are not done; each waits for the arrays that it needs.

    Raises:
        UserError: the time limit is too short for an epoch.
    """
    limits = limits_by_model(study, states, facts)
    write = _sbatch if study.scheduler == "sbatch" else _bsub
    lines = [f"mkdir -p {shlex.quote(str(study.folder / 'logs'))}"]
    arrays: dict[str, str] = {}  # from a job to the name of its array
    for kind in KINDS:
        left = (WAITING, INTERRUPTED, FAILED, BLOCKED)
        renewed = kind == "report" and bool(arrays)  # a page of what could be had so far counts as done
        wanted = [s.job for s in states.values() if s.job.kind == kind and (s.name in left or renewed)]
        groups = dict.fromkeys(job.model for job in wanted) if kind == "train" else [ALL_MODELS]
        for number, model in enumerate(groups, 1):
            jobs = [job for job in wanted if model in (ALL_MODELS, job.model)]
            for part, some in enumerate(_chunks(jobs, study.slurm.array_size), 1):
                name = f"{kind}_{number}" + (f"_{part}" if len(jobs) > study.slurm.array_size else "")
                needed = [n.id for job in some for n in needs(study, job) if states[n.id].name != DONE]
                after = list(dict.fromkeys(arrays[n] for n in needed if n in arrays))
                lines.append(write(study, name, some, limits.get(model, longest(limits)), after))
                arrays |= {job.id: name for job in some}
    return lines if arrays else ["# everything is done, running or queued"]
