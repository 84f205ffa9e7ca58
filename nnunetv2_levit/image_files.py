"""The one checked reader of image and label files: what it returns was in the file, whole and unambiguous.

nnU-Net's readers decode the files. Before that each file is checked: ITK reads what is truncated, damaged or not
finite without a word. A compressed NIfTI file is decompressed twice by this, which costs a fraction of its decoding.
"""

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_formats import CHECKS
from nnunetv2_levit.nifti_files import NIFTI_ENDINGS, Header, is_scaled, load_nifti

BINCOUNT_BYTES = 2  # counting needs a place for every possible value
PROBABILITY_TOLERANCE = 1e-2  # nnU-Net sums in fp16
GRID_TOLERANCE = 1e-3


def _reason(error: BaseException) -> str:
    """The last line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def check_image_file(path: Path) -> None:
    """Make sure that an image or label file is whole and consistent; of unknown formats, that it is there.

    Raises:
        UserError: the file is missing, truncated, damaged, or its header describes no image of real, finite numbers.
    """
    _checked(path)


def _checked(path: Path) -> Header | None:
    """Check a file; its header where it is a NIfTI file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.name.endswith(NIFTI_ENDINGS):
        return load_nifti(path)[1]
    check = CHECKS.get(path.suffix.lower())
    if check is not None:
        try:
            check(path)
        except Exception as error:  # whatever a library says of a file that it can't parse
            raise UserError(f"{path} is truncated or damaged ({_reason(error)}): copy it anew") from None
    return None


def read_images(paths: Sequence[Path], reader: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """A case's image files by one of nnU-Net's readers: (C, D, H, W) in fp32, and the reader's properties.

    Raises:
        UserError: a file is not whole (see `check_image_file`), can't be read, or holds NaN or infinite voxels; or the
            files differ in shape or spacing.
    """
    for path in paths:
        check_image_file(path)
    names = ", ".join(map(str, paths))
    try:
        with np.errstate(over="ignore"):  # float64 beyond fp32 is found below
            values, properties = reader.read_images([str(path) for path in paths])
        spacing = np.array(properties["spacing"], dtype=np.float64)
    except Exception as error:
        reason = _reason(error) if str(error) or len(paths) == 1 else "they differ in shape or spacing"
        raise UserError(f"{names} can't be read ({reason}): correct or replace it") from error
    if not (np.isfinite(spacing).all() and spacing.min() > 0):
        raise UserError(f"{names} has the spacing {tuple(spacing.tolist())}: correct it")
    if not np.isfinite(values).all():
        raise UserError(f"{names} contains NaN or infinite voxels: replace them by numbers")
    return values, properties


def read_label_file(path: Path, reader: Any, *, allowed: Iterable[int]) -> tuple[np.ndarray, dict[str, Any]]:
    """A label file by one of nnU-Net's readers: (D, H, W) as integers, and the reader's properties.

    Raises:
        UserError: as of `read_images`; or the labels are stored scaled or in several channels, or are none of
            ``allowed``.
    """
    header = _checked(path)
    if header is not None:
        check_unscaled(path, header)
    try:
        values, properties = reader.read_seg(str(path))
    except Exception as error:
        raise UserError(f"{path} can't be read ({_reason(error)}): replace it") from error
    if len(values) != 1:
        raise UserError(f"{path} has {len(values)} channels, such as colours, where labels have one: convert it")
    return as_labels(np.asarray(values)[0], path=path, allowed=allowed), properties


def check_unscaled(path: Path, header: Header) -> None:
    """Make sure that the voxels of a label file are the labels, not multiples of them.

    Raises:
        UserError: the NIfTI header scales them.
    """
    if is_scaled(header):
        raise UserError(
            f"{path} stores its labels scaled (scl_slope {float(header['scl_slope']):g}, scl_inter "
            f"{float(header['scl_inter']):g}): store the labels themselves"
        )


def as_labels(values: np.ndarray, *, path: Path, allowed: Iterable[int]) -> np.ndarray:
    """Labels as the smallest unsigned integers that hold ``allowed``, of the same shape.

    Raises:
        UserError: a value that is not finite, not whole or not in ``allowed``; ``path`` is named.
    """
    known = frozenset(allowed)
    if values.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of the type {values.dtype}, no labels: correct the file")
    with np.errstate(invalid="ignore"):  # NaN, which differs from whatever it is cast to
        labels = values.astype(np.min_scalar_type(max(known)))
    # counting is many times faster than sorting; what is cut or wrapped by the cast differs from the value
    foreign = [] if np.array_equal(labels, values) else np.unique(values[labels != values]).tolist()
    if labels.dtype.itemsize <= BINCOUNT_BYTES:
        present = np.flatnonzero(np.bincount(labels.ravel(order="K")))
    else:
        present = np.unique(labels)
    foreign += [value for value in present.tolist() if value not in known]
    if foreign:
        raise UserError(f"{path} contains the label {foreign[0]:g}, none of {sorted(known)}: correct the file")
    return labels


def read_probabilities(path: Path) -> np.ndarray:
    """Probabilities (classes, *shape) that nnU-Net saved beside a segmentation, read to the last byte.

    Raises:
        UserError: the file is missing, truncated or damaged, or holds no numbers from 0 to 1 of that name.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:  # np.load leaves damaged ones open
            values = content["probabilities"]
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (
        *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError),
        *(MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise UserError(f"{path} holds no array 'probabilities' ({_reason(error)}): predict again") from None
    if values.dtype.kind != "f" or values.ndim < 3 or not values.size:
        raise UserError(f"{path} holds values of type {values.dtype} and shape {values.shape}: predict again")
    # not <=: NaN is an error too
    if not (values.min() >= -PROBABILITY_TOLERANCE and values.max() <= 1 + PROBABILITY_TOLERANCE):
        raise UserError(f"{path} holds values outside 0 to 1, no probabilities: predict again")
    return values


def differing_geometry(
    first: tuple[Sequence[int], dict[str, Any]], second: tuple[Sequence[int], dict[str, Any]]
) -> tuple[str, tuple, tuple] | None:
    """What first differs between two files, each given by its shape and the properties that nnU-Net's reader returned.

    Returns its name (shape, spacing, origin, direction or affine) and both values; None where the grids are the same.
    """
    properties = (first[1], second[1])
    facts: list[tuple[str, float, tuple, tuple]] = [("shape", 0.0, tuple(first[0]), tuple(second[0]))]
    facts.append(("spacing", 0.0, tuple(first[1]["spacing"]), tuple(second[1]["spacing"])))
    if all("sitk_stuff" in p for p in properties):
        for name in ("origin", "direction"):
            ours, theirs = (tuple(p["sitk_stuff"][name]) for p in properties)
            facts.append((name, GRID_TOLERANCE, ours, theirs))
    if all("nibabel_stuff" in p for p in properties):
        ours, theirs = (tuple(np.ravel(p["nibabel_stuff"]["original_affine"])) for p in properties)
        facts.append(("affine", GRID_TOLERANCE, ours, theirs))
    for what, absolute, ours, theirs in facts:
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=GRID_TOLERANCE, atol=absolute):
            return what, ours, theirs
    return None
