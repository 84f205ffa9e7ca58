"""What a user can mend: one exception, and how it ends a program."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class UserError(ValueError):
    """Bad input: one clear sentence saying what is wrong, where, and how to mend it."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with the sentence on standard error and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODE) from None
