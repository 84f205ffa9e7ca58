"""Arguments of a network's constructor as text: ``--set key=value``."""

import ast
import json
from collections.abc import Iterable
from typing import Any

from nnunetv2_levit.errors import UserError

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def _value(text: str) -> Any:
    """A number, text, list or object: JSON or Python, whichever it is; anything else is a text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    try:
        return json.loads(json.dumps(value))  # plans are JSON: a tuple becomes a list
    except (TypeError, ValueError):
        return text


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """``["depth=3", "norm=batch"]`` as ``{"depth": 3, "norm": "batch"}``.

    Raises:
        UserError: a word without ``=``, a key that is no argument's name, or one that is given twice.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found or not key.isidentifier():
            raise UserError(f"--set {word!r} is not key=value with the name of an argument: write --set depth=3")
        if key in settings:
            raise UserError(f"--set gives {key} twice: give it once")
        settings[key] = _value(text)
    return settings
