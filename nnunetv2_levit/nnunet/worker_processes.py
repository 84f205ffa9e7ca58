"""Worker processes that end with the process that started them, however that one ends."""

import ctypes
import multiprocessing
import os
import signal
import sys


def die_with_parent() -> None:
    """Let this worker die when the process that started it is gone; called in the worker.

    A worker waits for work from a queue that it also holds open itself, so it never sees the end of a killed parent.
    On Linux the system kills it with its parent; elsewhere only a parent that is gone already is noticed.
    """
    parent = multiprocessing.parent_process()  # not os.getppid(), which may be the server that forked this process
    if parent is None:  # no worker
        return
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if not parent.is_alive():  # it died before it was asked
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
