"""Worker processes that end with the process that started them, however that one ends."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading


def die_with_parent() -> None:
    """Let this worker die when the process that started it is gone; called in the worker.

    A worker waits for work from a queue that it also holds open itself, so it never sees the end of a killed parent.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # no worker
        return
    if sys.platform != "linux" or os.getppid() != parent.pid:  # another process, the fork server, forked this one
        threading.Thread(target=_die_after, args=(parent,), daemon=True).start()
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before it was asked
        _die()


def _die_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
