"""Commands that the documentation shows exist, with the flags that it shows."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from nnunetv2_levit.cli import PASSED_THROUGH, build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*/*.md")])
COMMAND = re.compile(r"(?:^ +|`)(nnunetv2_levit [a-z][^`]*?)(?:`|$|  +#)", re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of this package that a page shows, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return [shlex.split(match.replace("…", "x"), comments=True) for match in COMMAND.findall(text)]


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags of each subcommand."""
    (subcommands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {name: set(parser._option_string_actions) for name, parser in subcommands.choices.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shown_commands_exist(page, flags):
    wrong = []
    for _, subcommand, *words in commands(page):
        if subcommand not in flags:
            wrong.append(f"no subcommand {subcommand}")
        elif subcommand not in PASSED_THROUGH:  # nnU-Net's commands have flags of their own
            used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            wrong += [f"{subcommand} has no {flag}" for flag in used - flags[subcommand]]
    assert not wrong


def test_commands_are_found():
    assert sum(len(commands(page)) for page in PAGES) > 60
