"""A seed that fixes a training: weights, sampling and augmentation, the same also after a stop and ``--c``.

Batch number b is drawn from random numbers seeded by (seed, b), whatever worker draws it and wherever the training was
interrupted. Not fixed: the order in which a GPU adds numbers (nnU-Net lets cuDNN choose its algorithms by speed), other
versions of torch or nnU-Net, another number of GPUs or of threads on a CPU.
"""

import os
import random
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.worker_processes import die_with_parent

VARIABLE = "nnUNet_levit_seed"
WORKERS_VARIABLE = "nnUNet_n_proc_DA"
WEIGHTS, EPOCHS, TRAINING, VALIDATION = range(4)  # one stream of random numbers each


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and torch (all devices) from the numbers of ``key``."""
    first, second = np.random.SeedSequence(key).generate_state(2)
    random.seed(int(first))
    np.random.seed(first)  # noqa: NPY002 (nnU-Net and batchgenerators draw from the global generator)
    torch.manual_seed(int(second))


class NumberedBatches:
    """A data loader of nnU-Net whose batches are numbered, each drawn from random numbers of its own.

    Args:
        loader: what draws a batch.
        key: numbers that seed all batches, such as (seed, stream).
        first: number of the first batch.
        workers: how many processes draw in turn; worker w draws batches first + w, first + w + workers, ….
    """

    def __init__(self, loader: Any, *, key: tuple[int, ...], first: int, workers: int) -> None:
        self.loader, self.key, self.workers = loader, key, workers
        self.first = self.number = first

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker process."""
        die_with_parent()
        torch.set_num_threads(1)  # the trainer's threads were not forked along: a worker would wait for them for ever
        self.number = self.first + thread_id
        self.loader.set_thread_id(thread_id)

    def __iter__(self) -> "NumberedBatches":
        return self

    def __next__(self) -> Any:
        seed_everything(*self.key, self.number)
        self.number += self.workers
        return next(self.loader)


def _numbered(trainer: Any, augmenter: Any, *, key: tuple[int, ...], first: int, workers: int, cached: int) -> Any:
    batches = NumberedBatches(augmenter.data_loader, key=key, first=first, workers=max(1, workers))
    if workers == 0:
        return SingleThreadedAugmenter(batches, None)
    result = MultiThreadedAugmenter(
        batches,
        None,
        workers,
        num_cached_per_queue=cached,
        pin_memory=trainer.device.type == "cuda",
        wait_time=0.002,
    )
    result._start()  # now, while signals are blocked for the processes that it forks
    return result


def make_repeatable(trainer: Any, seed: int) -> None:
    """Let a trainer of nnU-Net, ours or another, draw everything from ``seed``; call it before `initialize`.

    A trainer that makes its data loaders in a way of its own keeps them, and says so in its log.
    """
    if getattr(trainer, "seed", None) is not None:
        return
    trainer.seed = seed
    initialize, get_dataloaders, on_train_epoch_start = (
        trainer.initialize,
        trainer.get_dataloaders,
        trainer.on_train_epoch_start,
    )

    def seeded_initialize() -> None:
        seed_everything(seed, WEIGHTS)
        initialize()

    def seeded_loaders() -> tuple[Any, Any]:
        from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

        workers = get_allowed_n_proc_DA()
        before = os.environ.get(WORKERS_VARIABLE)
        os.environ[WORKERS_VARIABLE] = "0"  # nnU-Net then returns the loaders as they are
        try:
            augmenters = get_dataloaders()
        finally:
            os.environ.pop(WORKERS_VARIABLE)
            if before is not None:
                os.environ[WORKERS_VARIABLE] = before
        if not all(isinstance(augmenter, SingleThreadedAugmenter) for augmenter in augmenters):
            trainer.print_to_log_file(f"The seed {seed} fixes the weights only: this trainer has its own data loaders")
            return augmenters
        training, validation = augmenters
        epoch, rank = trainer.current_epoch, trainer.local_rank
        fewer = max(1, workers // 2) if workers else 0
        return (
            _numbered(
                trainer,
                training,
                key=(seed, TRAINING, rank),
                first=epoch * trainer.num_iterations_per_epoch,
                workers=workers,
                cached=2,
            ),
            _numbered(
                trainer,
                validation,
                key=(seed, VALIDATION, rank),
                first=epoch * trainer.num_val_iterations_per_epoch,
                workers=fewer,
                cached=2,
            ),
        )

    def seeded_epoch_start() -> None:
        seed_everything(seed, EPOCHS, trainer.local_rank, trainer.current_epoch)
        on_train_epoch_start()

    trainer.initialize = seeded_initialize
    trainer.get_dataloaders = seeded_loaders
    trainer.on_train_epoch_start = seeded_epoch_start


def make_repeatable_if_asked(trainer: Any) -> None:
    """`make_repeatable` with the seed of the environment variable ``nnUNet_levit_seed``, where that is set.

    Raises:
        UserError: it is no number.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return
    if not text.isdecimal():
        raise UserError(f"the environment variable {VARIABLE} is {text!r}: set it to a number, 0 or more")
    make_repeatable(trainer, int(text))
