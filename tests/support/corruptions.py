"""Seeded corruptions of NIfTI files; corruption number k is the same on every machine.

Some changes make another valid file, which nobody can tell from a right one by the file alone: `undetectable`.
"""

import gzip
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nibabel.nifti1 import header_dtype
from PIL import Image

SEED = 20261121
HEADER_BYTES = 348
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
