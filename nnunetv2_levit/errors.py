"""What a user can mend: exceptions of one sentence each. Only `cli` and the plug-in end a program with them."""

import re

EXIT_CODE = 2


class UserError(ValueError):
    """Bad input: one clear sentence saying what is wrong, where, and how to mend it."""


class NonFiniteLossError(UserError):
    """A training's loss became NaN or infinite: what is in memory is worthless, the checkpoints are as they were."""


# how a traceback ends that torch.multiprocessing hands on from a process of a training on several GPUs
_HANDED_ON = re.compile(rf"^{re.escape(__name__)}\.\w+: (.+)\s*\Z", re.MULTILINE)


def last_line(error: BaseException) -> str:
    """The error's last line that says something; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def sentence_of(error: BaseException) -> str | None:
    """What to tell a user instead of a traceback: of a `UserError`, or of one that another process handed on."""
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "ProcessRaisedException" and (found := _HANDED_ON.search(str(error))):
        return found[1]
    return None
