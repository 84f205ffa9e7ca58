"""Writing result files whole or not at all."""

import json
import os
from collections.abc import Callable
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


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole; NaN is no JSON and refused (use None)."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


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
