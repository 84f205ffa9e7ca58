"""Running a subcommand as a hostile user would, and what must be true of how it ends."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunetv2_levit import cli


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error of one call of ``nnunetv2_levit``."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Call the command line in this process; an exception other than SystemExit is a fault of ours and propagates."""
    capsys.readouterr()
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def assert_refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    """One sentence with all of ``words`` (such as the name of the file), this exit code, and no traceback."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.out + outcome.err, outcome
    if code == 2:
        (sentence,) = outcome.sentences
    else:
        sentence = "\n".join(outcome.sentences)
    for word in words:
        assert word in sentence, (word, sentence)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` (hidden ones too) with a digest of its content: equal before and after a refusal."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
