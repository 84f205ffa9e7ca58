"""Stopping a study: what runs after its epoch, what waits at once."""

import os
import signal
import socket

from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import jobs_of, lock_file
from nnunetv2_levit.study.local_queue import cancel_file
from nnunetv2_levit.study.locks import holder_of


def cancel(study: Study, *, now: bool = False) -> list[str]:
    """Ask all that runs to stop and take all that waits out of Slurm's queue; returns a line for each.

    Queues on other machines see the file ``cancelled`` and ask their trainings themselves.
    """
    told: list[str] = []
    if not study.folder.is_dir():
        return told
    cancel_file(study).touch()
    if (study.folder / "slurm").is_dir():
        from nnunetv2_levit.study.slurm import cancel_submitted

        told += cancel_submitted(study, now=now)
    for job in jobs_of(study).values():
        holder = holder_of(lock_file(study, job))
        if holder is None or holder.slurm_job is not None:
            continue
        if holder.host != socket.gethostname():
            told.append(f"{job.id} runs on {holder}: its queue there will stop it")
            continue
        try:
            os.kill(holder.pid, signal.SIGKILL if now else signal.SIGTERM)
        except ProcessLookupError:
            continue
        told.append(f"{job.id} was {'killed' if now else 'asked to stop after its epoch'} ({holder})")
    return told
