"""``NAME=VALUE`` on the command line, as `compare` and `report` take their results."""

import os
from pathlib import Path

from nnunetv2_levit.errors import UserError


def name_and_value(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` in two."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UserError(f"{text!r} should be NAME=VALUE")
    return name, value


def name_and_results(text: str) -> tuple[str, list[Path]]:
    """``[NAME=]PATH[,PATH…]``: the name (the path's last part where there is none) and the results."""
    if os.path.exists(text):  # noqa: PTH110 (pathlib's fails for long names); a path with "=" or "," in it
        name, equals, parts = "", "", [text]
    else:
        name, equals, value = text.partition("=")
        parts = (value if equals else text).split(",")
    if (equals and not name.strip()) or not all(parts):
        raise UserError(f"{text!r} should be RESULT or NAME=RESULT: a folder or file that `evaluate` wrote")
    paths = [Path(part) for part in parts]
    if not equals:
        name = paths[0].resolve().name if paths[0].suffix != ".json" else paths[0].resolve().parent.name
    return name, paths


def results_by_name(texts: list[str]) -> dict[str, list[Path]]:
    """The results of each model, in the order given.

    Raises:
        UserError: a text of another form, or two models of one name.
    """
    models: dict[str, list[Path]] = {}
    for text in texts:
        name, paths = name_and_results(text)
        if name in models:
            raise UserError("two results have the same name: name them, as in NAME=FOLDER")
        models[name] = paths
    return models
