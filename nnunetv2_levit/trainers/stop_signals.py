"""A training that is asked to stop (SIGUSR2, SIGTERM) finishes its epoch, saves, and ends with an exit code of its own.

Slurm sends the signal before a time limit or a preemption (``--signal=USR2@SECONDS``), a person with ``kill``. Resume
with ``--c``.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from nnunetv2_levit.errors import TrainingStoppedError

SIGNALS = () if sys.platform == "win32" else (signal.SIGUSR2, signal.SIGTERM)


class StopRequest:
    """Whether this process was asked to stop, from `watch` to `ignore_no_more`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Note the signals instead of dying of them; without effect outside a process's main thread."""
        if not SIGNALS or threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a process of several GPUs inherits the launcher's block

    def ignore_no_more(self) -> None:
        """The signals do again what they did before `watch`."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def __str__(self) -> str:
        return self.signal.name if self.signal is not None else "another process was asked"

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() == self._owner:  # a forked worker has inherited this handler
            self.signal = signal.Signals(number)


@contextmanager
def blocked() -> Iterator[None]:
    """Processes that are forked within never get the signals, which Slurm sends to every process of a job.

    A worker that dies of the signal would take the training with it, in the middle of an epoch.
    """
    if not SIGNALS:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # multiprocessing ends its workers by SIGTERM at exit, and waits for them; functions run in reverse order
    atexit.register(_kill_workers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def passed_on() -> Iterator[None]:
    """The signals go on to the processes that this one has started: on several GPUs it trains nothing itself."""

    def pass_on(number: int, _: FrameType | None) -> None:
        processes = multiprocessing.active_children()
        for process in processes:
            if process.pid is not None:
                os.kill(process.pid, number)
        if not processes:  # none has been started yet, so that this one ends as ever
            signal.signal(number, before[signal.Signals(number)])
            os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _agreed(trainer: Any, asked: bool) -> bool:
    """Whether any of the processes that train together was asked."""
    if not trainer.is_ddp:
        return asked
    import torch
    import torch.distributed

    flag = torch.tensor(int(asked), device=trainer.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def stop_when_asked(trainer: Any) -> None:
    """Let a trainer of nnU-Net, ours or another, raise `TrainingStoppedError` after the epoch in which it was asked to.

    The signals are noted from the start of the training to its end; before and after it (the validation) they do what
    they did before: the process dies, and nothing is lost that ``--c`` or ``--val`` would not do again.
    """
    if getattr(trainer, "stop_request", None) is not None:
        return
    request = trainer.stop_request = StopRequest()
    run_training, get_dataloaders, on_epoch_end = trainer.run_training, trainer.get_dataloaders, trainer.on_epoch_end

    def run() -> None:
        request.watch()
        try:
            run_training()
        finally:
            request.ignore_no_more()
        if _agreed(trainer, request.signal is not None):
            _end(trainer, f"Stopped as asked ({request}) before the validation: run again with --val, or --c")

    def loaders() -> Any:
        with blocked():
            return get_dataloaders()

    def end_epoch() -> None:
        on_epoch_end()
        if trainer.current_epoch < trainer.num_epochs and _agreed(trainer, request.signal is not None):
            _stop(trainer, request)

    trainer.run_training, trainer.get_dataloaders, trainer.on_epoch_end = run, loaders, end_epoch


def _stop(trainer: Any, request: StopRequest) -> None:
    trainer.current_epoch -= 1  # as in nnU-Net's on_train_end: a checkpoint stores the next epoch
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    trainer.current_epoch += 1
    if trainer.is_ddp:  # the first process writes: none of the others may end, and it with them, before it has
        import torch.distributed

        torch.distributed.barrier()
    saved = "checkpoint_latest.pth is saved: resume with --c"
    if trainer.disable_checkpointing:
        saved = "nothing is saved, as checkpoints are disabled"
    _end(trainer, f"Stopped as asked ({request}) after epoch {trainer.current_epoch - 1}; {saved}")


def _end(trainer: Any, sentence: str) -> NoReturn:
    trainer.print_to_log_file(sentence)
    _end_workers(trainer)
    raise TrainingStoppedError(sentence)


def _end_workers(trainer: Any) -> None:
    """As nnU-Net's `on_train_end`, or a thread that receives their batches reports their end at exit as a crash."""
    from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if isinstance(loader, MultiThreadedAugmenter | NonDetMultiThreadedAugmenter):
            loader._finish()
