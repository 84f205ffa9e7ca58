"""What can be said of a source before any image is read: whether its folders and files are there and can be used."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_levit.dataset_conversion.cases import RawCase
from nnunetv2_levit.errors import UserError

# a file's name has 255 bytes, of which nnU-Net takes some for the channel and the ending
MAX_IDENTIFIER_BYTES = 200


@contextmanager
def unreadable_source_named(source: Path) -> Iterator[None]:
    """End whatever the file system refuses while a source is looked at in a sentence that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or source} can't be read ({error.strerror or error}): mend its permissions or give "
            "another folder"
        ) from None


def entries(folder: Path) -> list[Path]:
    """What a folder of a source holds, sorted, without hidden files such as macOS's ``._*``.

    Raises:
        UserError: no such folder, a file of that name, or a name in it that no summary can hold.
    """
    if not folder.is_dir():
        problem = "is a file where a folder is expected" if folder.exists() else "is missing"
        raise UserError(f"{folder} {problem}: restore it from the release")
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        check_encodable(path)
    return found


def check_encodable(path: Path) -> None:
    """Refuse a path whose bytes are no text: ``conversion.json`` can't name it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"the name of {str(path)!a} is not encoded in UTF-8: rename it") from None


def unused(found: Iterable[Path], used: Iterable[Path | None], reason: str) -> dict[str, str]:
    """Those of the files ``found`` that no case uses, each with the reason why it is left out."""
    taken = set(used)
    return {str(path): reason for path in found if path not in taken}


def left_out_notes(left_out: dict[str, str]) -> list[str]:
    """One note for each reason for which files were left out."""
    examples = {reason: path for path, reason in reversed(left_out.items())}
    counts = Counter(left_out.values())
    return [f"left out, {reason}: {counts[reason]}, such as {examples[reason]}" for reason in counts]


def _check_file(path: Path) -> None:
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise UserError(f"{path} can't be read: mend its permissions")
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder where a file is expected: restore the file from the release")
    if path.is_symlink():
        raise UserError(f"{path} is a broken link to {path.readlink()}: restore the file that it points to")
    raise UserError(f"there is no file {path}: restore it from the release")


def check_cases(cases: Sequence[RawCase]) -> None:
    """Make sure that names can be written and that files are there.

    Raises:
        UserError: two cases of one name, a name that is no file's name, or a file that is missing or can't be read.
    """
    first: dict[str, RawCase] = {}
    for case in cases:
        name, path = case.identifier, case.images[0]
        if name in first:
            raise UserError(
                f"the case {name} occurs twice in the source, as {first[name].images[0]} and {path}: remove one of them"
            )
        first[name] = case
        if not name.isprintable() or not name.strip("._- "):
            raise UserError(f"{str(path)!a} is no usable name of a case: rename it with letters and digits")
        if len(os.fsencode(name)) > MAX_IDENTIFIER_BYTES:
            raise UserError(f"{path} has a name of more than {MAX_IDENTIFIER_BYTES} bytes: rename it")
    checked = {path for case in cases for path in (*case.images, case.label) if path is not None}
    for path in sorted(checked):
        _check_file(path)
