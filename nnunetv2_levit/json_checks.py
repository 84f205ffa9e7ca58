"""Whether a JSON file's content is what a schema of `schemas` says, and one sentence where it is not."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.schemas import PLANS, Schema

# nnU-Net's own files have about ten levels; Python's JSON writer fails at about a thousand
MOST_LEVELS = 64
LARGEST_INTEGER = 2**63 - 1


def _is_number(_: Any, value: Any) -> bool:
    """Neither true nor false, which are numbers to Python, and finite as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST_INTEGER


@cache
def _validator_class() -> type:
    from jsonschema import Draft202012Validator, ValidationError, validators

    def finite(_: Any, wanted: bool, content: Any, __: Any) -> Iterator[ValidationError]:
        for place, value in _values(content):
            if (
                wanted
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and not _is_number(None, value)
            ):
                yield ValidationError("", path=place, instance=value, schema={"description": "a finite number"})

    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "number": _is_number,
            "integer": lambda _, value: _is_number(None, value) and isinstance(value, int),
            "any number": lambda _, value: isinstance(value, int | float) and not isinstance(value, bool),
        }
    )
    return validators.extend(Draft202012Validator, {"finite": finite}, type_checker=checker)


def _values(content: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of a JSON document with its place, without recursion."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), content)]
    while stack:
        place, value = stack.pop()
        yield place, value
        if isinstance(value, dict):
            stack += [((*place, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            stack += [((*place, index), inner) for index, inner in enumerate(value)]


def shown(value: Any) -> str:
    """A value as JSON for a sentence, shortened."""
    if isinstance(value, dict | list) and len(value) > 3:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def place_of(place: tuple[str | int, ...]) -> str:
    """``configurations/2d/patch_size``, shortened where it is deep."""
    parts = [str(part) for part in place]
    return "/".join(parts if len(parts) < 12 else [*parts[:3], "…", parts[-1]])


def check_plain(path: Path, content: Any) -> None:
    """Refuse what is JSON but can't be walked, shown or written: extreme nesting, half characters and NUL.

    Raises:
        UserError: naming the file and the place.
    """
    for place, value in _values(content):
        if len(place) > MOST_LEVELS:
            raise UserError(f"{path}: {place_of(place)} is nested over {MOST_LEVELS} levels deep: restore the file")
        for text in (value, *(place[-1:])):
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
                raise UserError(f"{path}: {place_of(place)!a} holds half a character or NUL: restore the file")


def check(content: Any, schema: Schema, *, path: Path) -> None:
    """Check a document read from ``path``.

    Raises:
        UserError: naming the file, the place in it, what is expected there and how to mend it.
    """
    error = next(_validator_class()(schema).iter_errors(content), None)
    if error is None:
        return
    remedy = schema.get("remedy", "restore the file")
    if isinstance(content, dict) and isinstance(content.get("made_by"), str):
        remedy += f" (it was made by {shown(content['made_by'])})"
    place = place_of(tuple(error.absolute_path))
    raise UserError(f"{path}: {_problem(error, place, schema)}: {remedy}")


def _problem(error: Any, place: str, root: Schema) -> str:
    where = place or "the file"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        expected = error.schema.get("properties", {}).get(missing, {}).get("description")
        return f"{where} lacks {missing!r}" + (f", {expected}" if expected else "")
    if error.validator == "anyOf" and "lacking" in error.schema:
        return f"{where} lacks {error.schema['lacking']}"
    expected = error.schema.get("description", root.get("description", "as it should be"))
    if error.validator == "propertyNames" or "propertyNames" in error.absolute_schema_path:
        return f"{shown(error.instance)} in {where} is not {expected}"
    return f"{where} is not {expected} but {shown(error.instance)}"


def check_inheritance(plans: Mapping[str, Any], *, path: Path) -> None:
    """Check that every configuration of some plans inherits from one that is there, and none from itself.

    Raises:
        UserError: naming the file and the configuration.
    """
    configurations = plans["configurations"]
    for name in configurations:
        line = [name]
        while (parent := configurations[line[-1]].get("inherits_from")) is not None:
            if parent not in configurations or parent in line:
                what = "itself" if parent in line else f"{parent!r}, which is not there"
                raise UserError(f"{path}: configurations/{name} inherits from {what}: {PLANS['remedy']}")
            line.append(parent)
