"""Writing files and folders whole or not at all, and reading JSON that is checked."""

import glob
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from nnunetv2_levit import json_checks, schemas
from nnunetv2_levit.errors import UserError


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Check before a long computation that a file, or files in a folder, can be written; leaves nothing behind.

    Raises:
        UserError: no name, a folder where a file is needed or the reverse, or no permission.
    """
    place = path if folder else path.parent
    try:
        if not folder:
            _check_replaceable(path)
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise UserError(f"{path} can't be written, as {place} is not a folder: choose another place")
        with tempfile.TemporaryFile(dir=place):
            pass
        if not folder and path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{path} can't be written: mend its permissions or choose another place")
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _not_written(path, error) from None


def check_output_folder(output: Path) -> None:
    """`check_writable` of the folder that a command was given with ``-o``.

    Raises:
        UserError: it is a file, or files can't be written in it.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file: give a folder with -o")
    check_writable(output, folder=True)


def _check_replaceable(path: Path) -> None:
    """Raise UserError unless there is nothing or an ordinary file, which may be replaced (a device never)."""
    if not path.name or path.name == ".." or path.is_dir():
        raise UserError(f"{str(path)!r} is a folder: give the name of a file to write")
    if os.path.lexists(path) and not path.is_file():
        raise UserError(f"{path} is no ordinary file, and is not replaced: give the name of a file to write")


def _concerns(path: Path, error: OSError) -> bool:
    """Whether an error is about writing ``path``, and not about a file that was read meanwhile."""
    if not isinstance(error.filename, str | os.PathLike):
        return True
    other = Path(error.filename)
    return other.is_relative_to(path.parent) or path.is_relative_to(other)


def _not_written(path: Path, error: OSError | ValueError) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{path} can't be written ({reason}): choose another place")


@contextmanager
def _folder_made(folder: Path) -> Iterator[None]:
    """The folder exists within the block; where the block fails, the folders that had to be made are removed again."""
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def _temporary_name() -> str:
    """Another one each time, as several processes may write the same file at once; hidden, and without the file's own
    name, by which a file that a killed process leaves would be found for one of its kind."""
    return f".partial-{uuid4().hex}"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path`` and rename it to ``path``; makes the folder where it is missing.

    The temporary name keeps the file ending, by which libraries choose the format.

    Raises:
        UserError: the folder or file can't be written; nothing is left behind.
    """
    try:
        _check_replaceable(path)
        partial = path.with_name(f"{_temporary_name()}{path.suffix}")
        with _folder_made(path.parent):
            try:
                write(partial)
                os.replace(partial, path)  # noqa: PTH105
            finally:
                with suppress(OSError):  # gone by now, or not even its folder can be read: the error itself says more
                    partial.unlink()
    except OSError as error:
        if not _concerns(path, error):
            raise
        raise _not_written(path, error) from None


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into ``folder`` when the block ends well: all of them, or none.

    Other files of ``folder`` stay. Where the block or the moving fails, ``folder`` is as it was before.

    Raises:
        UserError: the folder can't be written.
    """
    partial = folder / _temporary_name()
    try:
        with _folder_made(folder):
            try:
                partial.mkdir()
                yield partial
                _move_all(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if not _concerns(folder / "any", error):
            raise
        raise _not_written(folder, error) from None


def _move_all(partial: Path, folder: Path) -> None:
    previous = partial / ".previous"
    names = sorted(path.name for path in partial.iterdir())
    previous.mkdir()
    moved: list[str] = []
    try:
        for name in names:
            _check_replaceable(folder / name)
            moved.append(name)
            if os.path.lexists(folder / name):
                (folder / name).rename(previous / name)
            (partial / name).rename(folder / name)
    except BaseException:
        for name in moved:
            if (previous / name).exists():
                (previous / name).replace(folder / name)
            elif not (partial / name).exists():
                (folder / name).unlink()
        raise


def beside(path: Path, *endings: str) -> list[Path]:
    """The files of other endings that are written beside ``path``.

    Raises:
        UserError: one of them is ``path`` itself.
    """
    if not path.name:
        raise UserError(f"{str(path)!r} is a folder: give the name of a file to write")
    for ending in endings:
        if path.suffix.lower() == ending:
            raise UserError(f"{path} is where the {ending} beside the JSON file goes: let the name end in .json")
    return [path.with_suffix(ending) for ending in endings]


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, whole.

    Raises:
        UserError: it can't be written, or holds a name that is no text.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 10) : error.end + 10]
        raise UserError(f"{path} can't be written: {near!a} holds half a character: rename what is called so") from None
    write_whole(path, lambda target: target.write_bytes(content))


def write_json(path: Path, content: Any, *, indent: int = 1, allow_nan: bool = False) -> None:
    """A JSON file, whole; NaN is no JSON and refused (use None), except in files of others that have it already."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object in it has {twice!r} twice")
    return content


def read_json(path: Path, *, what: str, schema: schemas.Schema | None = None) -> Any:
    """The content of a JSON file, checked; ``what`` says in the error what was expected.

    Raises:
        UserError: no such file, not JSON, or not as ``schema`` wants it; the sentence names file, place and remedy.
    """
    remedy = (schema or {}).get("remedy", "restore the file")
    try:
        if path.exists() and not path.is_file():  # a device or pipe might never end
            raise UserError(f"{path} is not {what} but {'a folder' if path.is_dir() else 'no ordinary file'}: {remedy}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: it should be {what}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {what}: its byte {error.start} is no UTF-8 text; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path} can't be read as {what} ({error.strerror or error}): mend its permissions") from None
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise UserError(f"{path} is not {what}: it is nested too deeply; {remedy}") from None
    except ValueError as error:
        reason = "it is empty" if not text.strip() else str(error)
        raise UserError(f"{path} is not {what}: {reason}; {remedy}") from None
    json_checks.check_plain(path, content)
    if schema is not None:
        json_checks.check(content, schema, path=path)
    return content


def _marked(target: Path, what: str) -> Path:
    """A hidden name beside ``target`` that says which process of which machine it belongs to."""
    return target.with_name(f".{target.name}.{what}-{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}")


def _left_over(target: Path, what: str) -> list[Path]:
    """What earlier processes of this machine have left under such names.

    Another machine's may be running. A name with this process's own number is of an earlier one: in containers numbers
    come again.
    """
    prefix = f".{target.name}.{what}-{platform.node()}-"
    found = []
    for path in target.parent.glob(f"{glob.escape(prefix)}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            found.append(path)
    return found


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere os.kill would end the process instead of asking
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _check_free(target: Path, *, overwrite: bool, advice: str) -> None:
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already: {advice}")


@contextmanager
def replaced_at_the_end(target: Path, *, overwrite: bool, advice: str) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well, and vanishes otherwise.

    Folders left by a killed process of this machine are removed first; what it had moved away to replace is put back
    where nothing took its place. Raises UserError where ``target`` exists (unless ``overwrite``; ``advice`` says what
    to do then) or can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for replaced in _left_over(target, "previous"):
            if target.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(target)
        _check_free(target, overwrite=overwrite, advice=advice)
        for left_over in _left_over(target, "partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        partial = _marked(target, "partial")
        partial.mkdir()
    except OSError as error:
        raise UserError(
            f"{target.parent} can't be written ({error.strerror or error}): mend its permissions or choose another"
        ) from None
    try:
        yield partial
        _check_free(target, overwrite=overwrite, advice=advice)
        previous = None
        if target.exists():
            previous = _marked(target, "previous")
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
