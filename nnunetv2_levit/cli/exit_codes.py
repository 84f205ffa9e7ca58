"""How bad input ends a command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2_levit.errors import ending_of


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with the sentence on standard error, without a traceback: exit code 2, or 75 after a stop."""
    try:
        yield
    except Exception as error:
        ending = ending_of(error)
        if ending is None:
            raise
        line, code = ending
        print(line, file=sys.stderr, flush=True)
        raise SystemExit(code) from None
