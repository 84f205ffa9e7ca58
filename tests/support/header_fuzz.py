"""Seeded corruptions of NIfTI files, sent through the subcommands: never a changed number, never an exception.

Corruption number k is the same on every machine. A corrupted file must be refused by a sentence that names it, or give
exactly what the clean file gives. ``python -m tests.support.header_fuzz --count 300`` is the long form of
``tests/faults/test_header_fuzz.py``.

Some changes make another valid file, which nobody can tell from a right one by the file alone. `undetectable` lists
them; only these are let pass with another result, and where a second file of the case disagrees they must be found.
"""

import argparse
import gzip
import io
import json
import math
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import header_dtype
from PIL import Image
from tqdm import tqdm

from nnunetv2_levit import cli

SEED = 20261121
HEADER_BYTES = 348
REFUSED, UNCHANGED, UNDETECTABLE = "refused", "unchanged", "another valid file"
GOOD = frozenset({REFUSED, UNCHANGED, UNDETECTABLE})
SPACING_TOLERANCE = 1e-3  # within which two files of a case may differ

FLOATS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1.0, 2.0, 0.5, 1e30, 1e-30, float(np.finfo(np.float32).max))
INTEGERS = (-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 512, 1007, 1005, 32767, -32768)
CHANGED_OFTEN = (
    *("dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "intent_code", "xyzt_units"),
    *("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z", "magic", "sizeof_hdr"),
)


@dataclass(frozen=True)
class Corruption:
    """A damaged file: its kind, what was done, and its content."""

    kind: str
    what: str
    content: bytes


def _fields(content: bytes) -> np.ndarray:
    """The header's fields, a view that can be written."""
    return np.frombuffer(bytearray(content[:HEADER_BYTES]), header_dtype).copy()


def _replaced(content: bytes, fields: np.ndarray) -> bytes:
    return gzip.compress(fields.tobytes() + content[HEADER_BYTES:], mtime=0)


def _truncate(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    stream = gzip.compress(content, mtime=0)
    length = int(rng.integers(1, len(stream)))
    return f"stream cut at {length} of {len(stream)}", stream[:length]


def _truncate_inside(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    length = int(rng.integers(1, len(content)))
    return f"content cut at {length} of {len(content)}", gzip.compress(content[:length], mtime=0)


def _header_byte(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    damaged = bytearray(content)
    place, value = int(rng.integers(HEADER_BYTES + 4)), int(rng.integers(256))
    damaged[place] = value
    return f"byte {place} set to {value}", gzip.compress(bytes(damaged), mtime=0)


def _header_field(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    fields = _fields(content)
    names = CHANGED_OFTEN if rng.random() < 0.8 else header_dtype.names
    name = names[rng.integers(len(names))]
    kind = fields[name].dtype
    place = int(rng.integers(fields[name].size))
    if kind.kind == "S":
        fields[name] = bytes(rng.integers(0, 256, kind.itemsize, np.uint8).tolist())
        return f"{name} at random", _replaced(content, fields)
    values = FLOATS if kind.kind == "f" else INTEGERS
    value = values[rng.integers(len(values))]
    if kind.kind in "iu":
        value = int(np.clip(value, np.iinfo(kind).min, np.iinfo(kind).max))
    fields[name].reshape(-1)[place] = value
    return f"{name}[{place}] set to {value}", _replaced(content, fields)


def _plausible(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Changes that another valid file could have."""
    fields = _fields(content)
    dim, pixdim = fields["dim"][0], fields["pixdim"][0]
    choice = int(rng.integers(8))
    if choice == 0:
        pixdim[1:4] *= 2
        what = "pixdim doubled"
    elif choice == 1:
        for name in ("srow_x", "srow_y", "srow_z"):
            fields[name][0][:3] *= 2
        what = "sform doubled"
    elif choice == 2:
        pixdim[1:4] *= 2
        for name in ("srow_x", "srow_y", "srow_z"):
            fields[name][0][:3] *= 2
        what = "pixdim and sform doubled"
    elif choice == 3:
        dim[1:4] = dim[3:0:-1].copy()
        what = "dimensions turned round"
    elif choice == 4:
        dim[1], dim[3] = dim[1] * dim[3], 1
        what = "slices side by side"
    elif choice == 5:
        fields["scl_slope"] = 2
        what = "scl_slope 2"
    elif choice == 6:
        others = {2: 256, 4: 512, 16: 8, 64: 1024, 8: 16, 512: 4}
        fields["datatype"] = others[int(fields["datatype"][0])]
        what = f"datatype {int(fields['datatype'][0])} of the same width"
    else:
        fields["qoffset_x"] += 5
        fields["srow_x"][0][3] -= 5
        what = "5 mm aside"
    return what, _replaced(content, fields)


def _stream_bytes(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    stream = bytearray(gzip.compress(content, mtime=0))
    places = rng.integers(0, len(stream), int(rng.integers(1, 4))).tolist()
    for place in places:
        stream[place] ^= int(rng.integers(1, 256))
    return f"bytes {places} of the stream changed", bytes(stream)


def _append(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    more = rng.integers(0, 256, int(rng.integers(1, 600)), np.uint8).tobytes()
    choice = int(rng.integers(3))
    if choice == 0:
        return f"{len(more)} bytes after the stream", gzip.compress(content, mtime=0) + more
    if choice == 1:
        return f"{len(more)} bytes after the voxels", gzip.compress(content + more, mtime=0)
    return f"{len(more)} bytes as a second stream", gzip.compress(content, mtime=0) + gzip.compress(more, mtime=0)


def _other_type(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    picture, arrays = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "PNG")
    np.savez(arrays, probabilities=np.zeros((2, 3, 4)))
    page = b"<html><body>404</body></html>"
    others = {
        "nothing": b"",
        "a stream of nothing": gzip.compress(b"", mtime=0),
        "PNG": picture.getvalue(),
        "npz": arrays.getvalue(),
        "HTML": page,
        "compressed HTML": gzip.compress(page * 30, mtime=0),
        "NIfTI that is not compressed": content,
        "MetaImage": b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
        b"ElementDataFile = LOCAL\n" + bytes(8),
        "zeros": bytes(4000),
    }
    name = list(others)[rng.integers(len(others))]
    return name, others[name]


KINDS: dict[str, Callable[[bytes, np.random.Generator], tuple[str, bytes]]] = {
    "cut": _truncate,
    "header field": _header_field,
    "header byte": _header_byte,
    "stream bytes": _stream_bytes,
    "another field": _header_field,
    "cut inside": _truncate_inside,
    "plausible": _plausible,
    "appended": _append,
    "other type": _other_type,
}


def corruption(number: int, content: bytes) -> Corruption:
    """Corruption ``number`` of an uncompressed NIfTI-1 file's ``content``, as the content of a ``.nii.gz``."""
    kind = list(KINDS)[number % len(KINDS)]
    with np.errstate(all="ignore"):
        what, damaged = KINDS[kind](content, np.random.default_rng((SEED, number)))
    return Corruption(kind, what, damaged)


def undetectable(clean: bytes, damaged: bytes, *, image: bool, alone: bool) -> bool:
    """Whether a corrupted file is another valid one, which nothing in it tells from a right one.

    - What an image's voxels mean: a data type of the same width, scl_slope and scl_inter. (Labels are not scaled, and
      other labels are not declared.)
    - Of an image without a second file to compare with: sides whose product is the same; spacing, where pixdim and the
      sform change alike, or by less than the tolerance of their comparison.
    """
    try:
        before, after = (_fields(content) for content in (clean, gzip.decompress(damaged)))
    except (OSError, EOFError, ValueError):
        return False
    changed = {
        name
        for name in header_dtype.names
        if not np.array_equal(before[name], after[name], equal_nan=before[name].dtype.kind == "f")
    }
    if image and changed and changed <= {"datatype", "scl_slope", "scl_inter"}:
        return True
    if not (image and alone):
        return False
    sides = [math.prod(int(side) for side in fields["dim"][0][1:4]) for fields in (before, after)]
    if changed == {"dim"} and sides[0] == sides[1]:
        return True
    if changed <= {"pixdim", "srow_x", "srow_y", "srow_z"} and "pixdim" in changed:
        spacing = [fields["pixdim"][0][1:4].astype(float) for fields in (before, after)]
        return changed != {"pixdim"} or np.allclose(*spacing, rtol=SPACING_TOLERANCE, atol=0)
    return False


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
    """

    def __init__(
        self,
        subcommand: str,
        *,
        files: dict[str, Path],
        arguments: tuple[object, ...],
        result: Callable[[], Any],
        without_values: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        self.subcommand, self.files, self.arguments, self.result = subcommand, files, arguments, result
        self.without_values = without_values
        self.clean = {name: gzip.decompress(path.read_bytes()) for name, path in files.items()}
        first = call(*arguments)
        assert (first.code, first.failure) == (0, None), first
        self.expected = result()

    def outcome(self, number: int) -> Outcome:
        """Corrupt one file, run the command, put the file back."""
        name = list(self.files)[number // len(KINDS) % len(self.files)]
        path, damaged = self.files[name], corruption(number, self.clean[name])
        whole = path.read_bytes()
        path.write_bytes(damaged.content)
        try:
            ended = call(*self.arguments)
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


def predict_outcomes(numbers: Iterator[int] | range, *, model: Path, clean: Path, folder: Path) -> list[Outcome]:
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
