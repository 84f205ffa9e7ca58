"""Writing files and folders whole or not at all, and reading JSON."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside ``path`` and rename it to ``path``; makes the folder where it is missing.

    The temporary name keeps the file ending, by which libraries choose the format.

    Raises:
        UserError: the folder or file can't be written.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)  # noqa: PTH105
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}): choose another place") from None
    finally:
        partial.unlink(missing_ok=True) if partial.parent.is_dir() else None


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, whole."""
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any, *, indent: int = 1) -> None:
    """A JSON file, whole; NaN is no JSON and refused (use None)."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str) -> Any:
    """The content of a JSON file; ``what`` says in the error what was expected.

    Raises:
        UserError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: it should be {what}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as {what} ({error})") from None


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def replaced_at_the_end(target: Path, *, overwrite: bool, advice: str) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well, and vanishes otherwise.

    Folders left by a killed process are removed first. Raises UserError where ``target`` exists (unless ``overwrite``;
    ``advice`` says what to do then) or can't be written.
    """
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already: {advice}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_over in target.parent.glob(f".{target.name}.partial-*"):
            if not _is_running(left_over.name.rsplit("-", 1)[1]):
                shutil.rmtree(left_over, ignore_errors=True)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        partial.mkdir()
    except OSError as error:
        raise UserError(
            f"{target.parent} can't be written ({error.strerror}): mend its permissions or choose another"
        ) from None
    try:
        yield partial
        previous = None
        if target.exists():
            previous = target.with_name(f".{target.name}.previous-{os.getpid()}")
            target.rename(previous)
        try:
            partial.rename(target)
        except OSError:
            if previous is not None:
                previous.rename(target)
            raise
        if previous is not None:
            shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{target} could not be written ({error.strerror or error}): nothing was left behind"
            ) from None
        raise
