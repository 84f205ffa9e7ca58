"""How bad input ends a command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2_levit.errors import EXIT_CODE, sentence_of


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with the sentence on standard error and exit code 2, without a traceback."""
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODE) from None
