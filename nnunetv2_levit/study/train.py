"""One training of a study: nnU-Net's, of any trainer, seeded, stoppable, and going on where it was interrupted."""

import os
from functools import cache, partial
from pathlib import Path
from typing import Any

from nnunetv2_levit.files import write_json
from nnunetv2_levit.study import attempts
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import Job, attempts_file, fold_folder
from nnunetv2_levit.study.progress import CHECKPOINTS, FACTS, FINAL


def _save_whole(trainer: Any, saved: Any) -> None:
    """Checkpoints are written beside their place and renamed, so that a kill leaves the previous one whole."""
    save_checkpoint = trainer.save_checkpoint

    def save(filename: str) -> None:
        partial = f"{filename}.partial"
        save_checkpoint(partial)
        if Path(partial).is_file():  # not on ranks that save nothing
            os.replace(partial, filename)  # noqa: PTH105
            saved()

    trainer.save_checkpoint = save


def _set_threads(device: str) -> None:
    import torch

    if device == "cuda":
        torch.set_num_threads(1)  # as nnU-Net's command does
        torch.set_num_interop_threads(1)
    elif device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)


def _prepared(trainer: Any, study: Study, job: Job) -> Any:
    from nnunetv2_levit.trainers.seeding import make_repeatable
    from nnunetv2_levit.trainers.stop_signals import stop_when_asked

    make_repeatable(trainer, job.seed)  # without effect where the trainer is ours and has done it
    stop_when_asked(trainer)
    _save_whole(trainer, cache(partial(attempts.saved, attempts_file(study, job))))  # noted once an attempt
    return trainer


def _write_facts(trainer: Any, job: Job) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    write_json(
        Path(trainer.output_folder) / FACTS,
        {"parameters": parameters, "epochs": trainer.num_epochs, "seed": job.seed},
    )


def train(study: Study, job: Job, device: str) -> None:
    """Train, or go on training, or only validate where the training is finished.

    Raises:
        TrainingStoppedError: the training was asked to stop.
    """
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    kind = device.partition(":")[0]
    _set_threads(kind)
    fold = fold_folder(study, job)
    if study.gpus > 1:
        _train_on_several_gpus(study, job, fold)
        return
    finished = (fold / FINAL).is_file()
    resume = not finished and any((fold / name).is_file() for name in CHECKPOINTS)
    trainer = get_trainer_from_args(
        study.dataset,
        job.model.configuration,
        job.fold,
        job.model.trainer,
        study.plans,
        continue_training=resume,
        device=torch.device(kind),
    )
    _prepared(trainer, study, job)
    trainer.initialize()
    _write_facts(trainer, job)
    maybe_load_checkpoint(trainer, resume, finished)
    if kind == "cuda":
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
    if not finished:
        trainer.run_training()
    trainer.perform_actual_validation(False)


def _train_on_several_gpus(study: Study, job: Job, fold: Path) -> None:
    """nnU-Net starts a process a GPU; our trainers read seed and signals in each, others are nnU-Net's alone."""
    from nnunetv2.run.run_training import run_training

    from nnunetv2_levit.trainers.stop_signals import blocked

    finished = (fold / FINAL).is_file()
    resume = not finished and any((fold / name).is_file() for name in CHECKPOINTS)
    with blocked():  # the signal is for the children; started by spawn they inherit no handler, but this block
        run_training(
            study.dataset,
            job.model.configuration,
            job.fold,
            job.model.trainer,
            study.plans,
            num_gpus=study.gpus,
            continue_training=resume,
            only_run_validation=finished,
        )
