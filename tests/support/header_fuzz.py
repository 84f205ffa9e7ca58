"""Corrupted NIfTI files sent through the subcommands: never a changed number, never an exception.

A corrupted file must be refused by a sentence that names it, or give exactly what the clean file gives.
``python -m tests.support.header_fuzz --count 300`` is the long form of ``tests/faults/test_header_fuzz.py``.

Let pass with another result is only what `corruptions.undetectable` lists: another valid file. Where a second file of
the case disagrees it must be found.
"""

import argparse
import gzip
import io
import json
import math
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
from tqdm import tqdm

from nnunetv2_levit import cli
from tests.support.corruptions import KINDS, SPACING_TOLERANCE, Corruption, corruption, undetectable

REFUSED, UNCHANGED, UNDETECTABLE = "refused", "unchanged", "another valid file"
GOOD = frozenset({REFUSED, UNCHANGED, UNDETECTABLE})


@dataclass(frozen=True)
class Call:
    """How a call of the command ended; ``failure`` is an exception that no user should see."""

    code: int
    err: str
    failure: str | None = None


def call(*arguments: object) -> Call:
    """Call the command line in this process, what it prints kept."""
    out, err = io.StringIO(), io.StringIO()
    code, failure = 0, None
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
    return Call(code, err.getvalue(), failure)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two JSON-able results are equal, numbers but for what the tolerance of the spacing explains."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=2 * SPACING_TOLERANCE)
    return ours == theirs


@dataclass(frozen=True)
class Outcome:
    """What became of one corruption in one subcommand."""

    subcommand: str
    number: int
    file: str
    kind: str
    what: str
    result: str
    said: str = ""


class Scene:
    """A clean input of one subcommand, and what it gives.

    Args:
        files: the files that corruptions take turns in; "image" or "label" is part of how they are described.
        result: everything that the command computed, read from what it wrote.
        without_values: the part of a result that does not depend on what the voxels of images mean.
        raw: the folder of nnUNet_raw while the command runs.
    """

    def __init__(
        self,
        subcommand: str,
        *,
        files: dict[str, Path],
        arguments: tuple[object, ...],
        result: Callable[[], Any],
        without_values: Callable[[Any], Any] = lambda result: result,
        raw: Path,
    ) -> None:
        self.subcommand, self.files, self.arguments, self.result = subcommand, files, arguments, result
        self.without_values, self.raw = without_values, raw
        self.clean = {name: gzip.decompress(path.read_bytes()) for name, path in files.items()}
        first = self._call()
        assert (first.code, first.failure) == (0, None), first
        self.expected = result()

    def _call(self) -> Call:
        with mock.patch.dict(os.environ, nnUNet_raw=str(self.raw)):
            return call(*self.arguments)

    def outcome(self, number: int) -> Outcome:
        """Corrupt one file, run the command, put the file back."""
        name = list(self.files)[number // len(KINDS) % len(self.files)]
        path, damaged = self.files[name], corruption(number, self.clean[name])
        whole = path.read_bytes()
        path.write_bytes(damaged.content)
        try:
            ended = self._call()
            result, said = self._judge(ended, path, name, damaged)
        finally:
            path.write_bytes(whole)
        return Outcome(self.subcommand, number, name, damaged.kind, damaged.what, result, said)

    def _judge(self, ended: Call, path: Path, name: str, damaged: Corruption) -> tuple[str, str]:
        if ended.failure is not None:
            return "EXCEPTION", ended.failure
        if ended.code != 0:
            return judge_sentence(ended, path.name)
        try:
            found = self.result()
        except Exception as error:
            return "UNREADABLE RESULT", f"{type(error).__name__}: {error}"
        if same(found, self.expected):
            return UNCHANGED, ""
        values_only = same(self.without_values(found), self.without_values(self.expected))
        if values_only and undetectable(self.clean[name], damaged.content, image="image" in name, alone=False):
            return UNDETECTABLE, ""
        return "CHANGED", ""


def judge_sentence(ended: Call, name: str) -> tuple[str, str]:
    """A refusal is exit code 2 and one sentence that names the file."""
    sentences = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    said = "\n".join(sentences)
    if ended.code != 2 or len(sentences) != 1 or name not in said or "Traceback" in ended.err:
        return f"BAD SENTENCE (exit code {ended.code})", ended.err[-500:]
    return REFUSED, said


def predict_outcomes(numbers: Sequence[int], *, model: Path, clean: Path, folder: Path) -> list[Outcome]:
    """All corruptions of the image ``clean`` as cases of one call, which must do the whole ones and name the others."""
    shutil.rmtree(folder, ignore_errors=True)
    images, out = folder / "images", folder / "out"
    images.mkdir(parents=True)
    content = gzip.decompress(clean.read_bytes())
    shutil.copy(clean, images / "clean_0000.nii.gz")
    damaged = {number: corruption(number, content) for number in numbers}
    for number, case in damaged.items():
        (images / f"case{number:05d}_0000.nii.gz").write_bytes(case.content)
    ended = call(
        *("predict", "-m", model, "-i", images, "-o", out, "-f", "0"),
        *("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar"),
    )
    outcomes = []
    expected = np.asanyarray(nibabel.load(out / "clean.nii.gz").dataobj)
    for number, case in damaged.items():
        target = out / f"case{number:05d}.nii.gz"
        said = [
            line for line in ended.err.splitlines() if line.startswith(f"error: case{number:05d} was not predicted")
        ]
        result, words = "CHANGED", ""
        if ended.failure is not None:
            result, words = "EXCEPTION", ended.failure
        elif not target.is_file():
            words = "\n".join(said)
            named = len(said) == 1 and f"case{number:05d}_0000.nii.gz" in words and ended.code == 1
            result = REFUSED if named else f"BAD SENTENCE (exit code {ended.code})"
        elif np.array_equal(np.asanyarray(nibabel.load(target).dataobj), expected):
            result = UNCHANGED
        elif undetectable(content, case.content, image=True, alone=True):
            result = UNDETECTABLE
        outcomes.append(Outcome("predict", number, "image", case.kind, case.what, result, words))
    return outcomes


def summary(outcomes: list[Outcome]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by subcommand, kind and result."""
    counts: dict[str, dict[str, Counter]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.subcommand, {}).setdefault(outcome.kind, Counter())[outcome.result] += 1
    return {sub: {kind: dict(sorted(c.items())) for kind, c in kinds.items()} for sub, kinds in counts.items()}


def main() -> None:
    """The long form; exit code 1 where anything but a refusal or an unchanged result occurred."""
    from tests.support.fuzz_scenes import scenes, write_predict_scene

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=300, help="corruptions for each subcommand")
    parser.add_argument("--first", type=int, default=0, help="number of the first corruption")
    parser.add_argument("--output", type=Path, default=Path("header_fuzz.json"))
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.count)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scene in scenes(folder):
            outcomes += [scene.outcome(number) for number in tqdm(numbers, desc=scene.subcommand)]
        model, clean = write_predict_scene(folder)
        some = 20
        for start in tqdm(numbers[::some], desc=f"predict, {some} a call"):
            part = range(start, min(start + some, numbers.stop))
            outcomes += predict_outcomes(part, model=model, clean=clean, folder=folder / "predicted")
    faults = [vars(outcome) for outcome in outcomes if outcome.result not in GOOD]
    let_pass = [vars(outcome) for outcome in outcomes if outcome.result == UNDETECTABLE]
    result = {"count": arguments.count, "first": arguments.first, "outcomes": summary(outcomes)}
    arguments.output.write_text(json.dumps({**result, "faults": faults, UNDETECTABLE: let_pass}, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    for fault in faults:
        print(fault)
    print(f"{len(faults)} of {len(outcomes)} corruptions were not found and changed a result, or ended badly")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
