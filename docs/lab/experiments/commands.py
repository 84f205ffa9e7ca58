"""How these scripts start programs of packages, and the command that a result notes."""

import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

OURS = {"nnunetv2_levit": "nnunetv2_levit.cli:main"}  # not to be looked up: it need not be installed


def program(name: str, *arguments: object) -> list[str]:
    """Words that start a console script, by the function behind it.

    With packages in a folder of PYTHONPATH (``pip install --target``) no programs lie beside Python. Ours and nnU-Net's
    start alike, so that their times can be compared.
    """
    target = OURS.get(name) or next(iter(entry_points(group="console_scripts", name=name))).value
    module, _, function = target.partition(":")
    code = f"import sys; from {module} import {function} as program; sys.exit(program())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def command_line(places: Mapping[str, str] | None = None) -> str:
    """The command of this process, without its output and with other names for ``places`` of this machine."""
    words = sys.argv[1:]
    kept = [word for before, word in zip(["", *words], words, strict=False) if not {"-o", "--output"} & {before, word}]
    names = [(places or {}).get(word, word) for word in kept]
    return " ".join([f"python docs/lab/experiments/{Path(sys.argv[0]).name}", *names])
