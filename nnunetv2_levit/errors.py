"""What ends a program by one sentence: what a user can mend, or a stop that was asked for.

Only `cli`, the plug-in and the worker of a study (`study.work`) end one.
"""

import re

EXIT_CODE = 2
STOPPED = 75
"""Exit code of a training that stopped as asked: neither done (0) nor failed (1 or 2); EX_TEMPFAIL of sysexits.h."""


class UserError(ValueError):
    """Bad input: one clear sentence saying what is wrong, where, and how to mend it."""


class NonFiniteLossError(UserError):
    """A training's loss became NaN or infinite: what is in memory is worthless, the checkpoints are as they were."""


class TrainingStoppedError(Exception):
    """A training stopped because it was asked to: what it had done is saved, and ``--c`` goes on from there."""


# how a traceback ends that torch.multiprocessing hands on from a process of a training on several GPUs
_HANDED_ON = re.compile(rf"^{re.escape(__name__)}\.(\w+): (.+)\s*\Z", re.MULTILINE)


def first_line(error: BaseException) -> str:
    """The error's first line that says something; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The error's last line that says something; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def sentence_of(error: BaseException) -> str | None:
    """What to tell a user instead of a traceback: of this module's errors, or of one that another process handed on."""
    if isinstance(error, UserError | TrainingStoppedError):
        return str(error)
    if type(error).__name__ == "ProcessRaisedException" and (found := _HANDED_ON.search(str(error))):
        return found[2]
    return None


def is_stop(error: BaseException) -> bool:
    """Whether a training stopped as asked, here or in another process that handed it on."""
    if type(error).__name__ == "ProcessRaisedException" and (found := _HANDED_ON.search(str(error))):
        return found[1] == TrainingStoppedError.__name__
    return isinstance(error, TrainingStoppedError)


def ending_of(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code that end a program; None for an error that deserves its traceback."""
    sentence = sentence_of(error)
    if sentence is None:
        return None
    return (sentence, STOPPED) if is_stop(error) else (f"error: {sentence}", EXIT_CODE)
