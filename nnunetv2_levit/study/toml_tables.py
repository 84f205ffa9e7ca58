"""Tables of a TOML file whose values are taken out by key, each with its type checked."""

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def refuse_file(file: Path, sentence: str) -> UserError:
    return UserError(f"{file}: {sentence}")


_NUMBER = (int, float)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "str | None": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": (_NUMBER, "a number"),
    "float | None": (_NUMBER, "a number"),
    "bool": ((bool,), "true or false"),
}


class Table:
    """One table of a file: takes values out by key, with their types checked, and refuses what is left over."""

    def __init__(self, file: Path, name: str, content: Any) -> None:
        self.file, self.name = file, name
        if not isinstance(content, dict):
            raise refuse_file(file, f"[{name}] must be a table")
        self.content = dict(content)

    def refuse(self, sentence: str) -> UserError:
        return refuse_file(self.file, f"[{self.name}] {sentence}")

    def take(self, key: str, kind: str, default: Any = ...) -> Any:
        if key not in self.content:
            if default is ...:
                raise self.refuse(f"has no {key}: add it")
            return default
        value = self.content.pop(key)
        types, words = _KINDS[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self.refuse(f"{key} must be {words}, not {value!r}")
        return value

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        return self._list(key, str, "texts", default)

    def numbers(self, key: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        values = self._list(key, int, "whole numbers", default)
        if any(isinstance(value, bool) or value < 0 for value in values):
            raise self.refuse(f"{key} must be whole numbers of 0 or more, not {list(values)}")
        return values

    def _list(self, key: str, kind: type, words: str, default: Sequence[Any] | None) -> tuple[Any, ...]:
        if key not in self.content and default is not None:
            return tuple(default)
        value = self.content.pop(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(item, kind) for item in value):
            raise self.refuse(f"{key} must be a list of {words} such as {key} = [...], not {value!r}")
        return tuple(value)

    def path(self, key: str, default: Path | None = None) -> Path | None:
        text = self.take(key, "str", None)
        return default if text is None else (self.file.parent / Path(text).expanduser()).resolve()

    def dataclass(self, kind: type) -> Any:
        """The remaining keys as the fields of a dataclass of plain values."""
        values = {}
        for one in fields(kind):
            if one.name not in self.content:
                continue
            annotation = one.type if isinstance(one.type, str) else str(one.type)
            if one.name == "extra":
                values[one.name] = self.content.pop(one.name)
                if not isinstance(values[one.name], dict):
                    raise self.refuse("extra must be a table of sbatch's flags")
            elif "tuple" in annotation:
                values[one.name] = self.texts(one.name)
            else:
                values[one.name] = self.take(one.name, getattr(one.type, "__name__", annotation))
        return kind(**values)

    def nothing_left(self, known: Sequence[str] = ()) -> None:
        if self.content:
            what = f"; it may have {', '.join(known)}" if known else ""
            raise self.refuse(f"has the unknown key {min(self.content)}{what}")


def at_least(table: Table, settings: Any, **limits: float) -> None:
    for key, least in limits.items():
        value = getattr(settings, key)
        if value is not None and not least <= value < math.inf:
            raise table.refuse(f"{key} must be a number from {least:g} on, not {value:g}")


def distinct(table: Table, key: str, values: Sequence[Any]) -> None:
    repeated = [value for value in values if list(values).count(value) > 1]
    if repeated:
        raise table.refuse(f"{key} names {repeated[0]!r} twice")


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no study {file}: `nnunetv2_levit study init -d DATASET` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML ({error}): mend that line") from None
