"""What is wrong with a command line whatever the subcommand."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.plain_text import one_line


def check_words(arguments: Sequence[str]) -> None:
    """Refuse empty words, which pathlib takes for the current folder; mostly an unset variable of a script.

    Raises:
        UserError: naming the word before the empty one.
    """
    for before, word in zip(["nnunetv2_levit", *arguments], arguments, strict=False):
        if not word.strip():
            raise UserError(f"the argument after {before} is empty (''): is a variable of your script unset?")


@contextmanager
def plain_sentences() -> Iterator[None]:
    """Errors of the file system become sentences, and a sentence stays on one line, whatever a file is called.

    Raises:
        UserError: a path that is too long, can't be read, and so on; or the one raised within.
    """
    try:
        yield
    except UserError as error:
        raise UserError(one_line(str(error))) from error
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        name = one_line(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename))
        raise UserError(
            f"{name} can't be used ({error.strerror}): give another path or mend its permissions"
        ) from error
