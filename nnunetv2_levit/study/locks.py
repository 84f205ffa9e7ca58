"""One process at a time: a lock that a killed process leaves, on one machine or on a file system that several share.

The lock is `flock` where the file system has it; the kernel releases it when the process dies, however it dies. NFS of
Linux passes it on to the server, so it holds between machines, unless mounted with ``nolock`` or ``local_lock``; some
cluster file systems refuse it. For both cases the holder also touches the lock file every half minute: a file that was
touched by another machine within the last minutes is held, whatever `flock` says.
"""

import fcntl
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HEARTBEAT = 30.0
STALE_AFTER = 150.0
"""Seconds without a heartbeat after which the holder on another machine counts as dead."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    slurm_job: str | None
    since: float

    @classmethod
    def this_process(cls) -> "Holder":
        return cls(socket.gethostname(), os.getpid(), slurm_job_id(), time.time())

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}" + (f", Slurm job {self.slurm_job}" if self.slurm_job else "")


def slurm_job_id() -> str | None:
    """The Slurm job (123, or 123_4 of an array) that this process belongs to, if any."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID")


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path) -> float:
    """Seconds since a file was touched, both times by the clock of the file system's server."""
    clock = path.with_name(f".clock-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    try:
        clock.touch()
        return clock.stat().st_mtime - path.stat().st_mtime
    finally:
        clock.unlink(missing_ok=True)


def _flock(descriptor: int, operation: int) -> bool | None:
    """True where it was had, False where another process has it, None where the file system has no such lock."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _left_over(path: Path, holder: Holder, *, flocked: bool) -> bool:
    """Whether the holder named in the file is dead although it did not sign off."""
    if holder.host == socket.gethostname():
        return flocked or not _is_alive(holder.pid)
    if holder.slurm_job is not None and holder.slurm_job == slurm_job_id():
        return True  # the same Slurm job, requeued on another machine
    return _age(path) > STALE_AFTER


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock of this file now; None where nobody does."""
    try:
        if path.stat().st_size == 0:
            return None
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        free = _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
    holder = _read_holder(path)
    if holder is None or free is False:
        return holder
    return None if _left_over(path, holder, flocked=bool(free)) else holder


class Lock:
    """A lock by its file, of this process alone: programs that it starts and processes that it forks have no share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._held = path.with_name(f"{path.name}.held")  # a folder, where there is no flock
        self._ended = threading.Event()

    def acquire(self, *, tries: int = 5) -> bool:
        """Take the lock; false where another process has it. Looking at a lock holds it for a moment: hence tries."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(tries):
            if attempt:
                time.sleep(0.1)
            if self._try():
                self._ended.clear()
                threading.Thread(target=self._beat, daemon=True).start()
                return True
        return False

    def _try(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        got = _flock(descriptor, fcntl.LOCK_EX)
        holder = _read_holder(self.path)
        stale = holder is None or _left_over(self.path, holder, flocked=bool(got))
        if got is False or not stale or (got is None and not self._make_folder(abandoned=holder is not None)):
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(Holder.this_process())).encode())
        os.fsync(descriptor)
        self._descriptor = descriptor
        # a worker forked from this process would hold the lock beyond its death
        os.register_at_fork(after_in_child=self._close)
        return True

    def _make_folder(self, *, abandoned: bool) -> bool:
        """Making a folder is atomic on every file system; one that a dead process left is moved away by one of us."""
        if abandoned:
            moved = self._held.with_name(f"{self._held.name}.{socket.gethostname()}.{os.getpid()}")
            try:
                self._held.rename(moved)
                moved.rmdir()
            except OSError:
                pass  # another process was faster
        try:
            self._held.mkdir()
        except FileExistsError:
            return False
        return True

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                os.utime(self.path)
            except OSError:
                return

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def release(self) -> None:
        """Sign off; without effect where the lock is not held."""
        if self._descriptor is None:
            return
        self._ended.set()
        os.ftruncate(self._descriptor, 0)
        if self._held.is_dir():
            self._held.rmdir()
        self._close()
