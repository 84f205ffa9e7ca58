"""NIfTI files read to the last byte, with a header that every reader understands alike.

ITK reads a truncated file as zeros, NaN as zeros and a spacing of zero as one, without a word, and takes the spacing
from ``pixdim`` where nibabel's affine takes it from the sform. What two readers would read differently is refused here.
"""

import math
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from nnunetv2_levit.errors import UserError

NIFTI_ENDINGS = (".nii.gz", ".nii")
SPACING_TOLERANCE_MM = 1e-3
SPACING_LIMITS_MM = (1e-6, 1e6)
GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window
MAGIC = (b"n+1", b"n+2")  # of one file; numpy drops the last zero
GZIP_MAGIC = b"\x1f\x8b"
FIRST_VOXEL = {348: 352, 540: 544}  # by the header's size: the least offset of the voxels
DATA_TYPES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}  # real numbers of 8 to 64 bits, by NIfTI's codes
MILLIMETRES = (0, 2)  # 0 is unknown, which everyone reads as mm
MOST_DIMENSIONS = 4  # ITK reads a fifth one as the components of a vector
PARALLEL = 1e-2  # of the determinant of the axes' directions

Header = nibabel.Nifti1Header  # Nifti2Header is a subclass


def decompress(content: bytes) -> bytes:
    """The content of a gzip stream of one or several members, each checked against its checksum.

    Raises:
        EOFError, isal_zlib.error: the stream ends early, is damaged, or something else follows it.
    """
    parts: list[bytes] = []
    if not content:
        raise EOFError("it is empty")
    while content:
        if not content.startswith(GZIP_MAGIC):
            raise EOFError("the compressed stream is followed by something else" if parts else "it is no gzip file")
        stream = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
        parts.append(stream.decompress(content))
        if not stream.eof:
            raise EOFError("the compressed stream ends early")
        content = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parse(content: bytes) -> Header:
    """The header as it is stored, of either version and byte order.

    Raises:
        HeaderDataError: this is no NIfTI file.
    """
    orders: tuple[tuple[str, Literal["little", "big"]], ...] = (("<", "little"), (">", "big"))
    for code, order in orders:
        size = int.from_bytes(content[:4], order)
        if size in FIRST_VOXEL and len(content) >= size:
            kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
            # nibabel's own checks would mend what they find
            header = kind(content[:size], endianness=code, check=False)
            if header["pixdim"][0] == 0:  # by the standard the same as 1
                header["pixdim"][0] = 1
            return header
    raise HeaderDataError("it has no header of a NIfTI file")


def _check_numbers(header: Header) -> None:
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise HeaderDataError(f"it has {dimensions} dimensions")
    shape = [int(side) for side in header["dim"][1 : dimensions + 1]]
    if min(shape) < 1:
        raise HeaderDataError(f"its shape is {shape}")
    if max([1, *shape[MOST_DIMENSIONS:]]) > 1:
        raise HeaderDataError(f"its shape is {shape}, of more than {MOST_DIMENSIONS} dimensions")
    code = int(header["datatype"])
    if code not in DATA_TYPES:
        name = nibabel.nifti1.data_type_codes.label[code] if code in nibabel.nifti1.data_type_codes else "unknown"
        raise HeaderDataError(f"its voxels are of the type {name} ({code}), no real numbers")
    if int(header["bitpix"]) != 8 * header.get_data_dtype().itemsize:
        raise HeaderDataError(f"bitpix is {int(header['bitpix'])}, which does not fit its data type {code}")
    offset, least = float(header["vox_offset"]), FIRST_VOXEL[int(header["sizeof_hdr"])]
    if not (offset >= least and offset.is_integer()):
        raise HeaderDataError(f"vox_offset is {offset:g}, and the voxels can't start before byte {least}")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    unscaled = slope == 0 or math.isnan(slope)  # nibabel writes NaN where nothing is to be scaled
    if unscaled and not (intercept == 0 or math.isnan(intercept)):
        raise HeaderDataError(f"scl_inter is {intercept:g} beside a scl_slope of {slope:g}, which readers read unlike")
    if not unscaled and not (math.isfinite(slope) and math.isfinite(intercept)):
        raise HeaderDataError(f"scl_slope is {slope:g} and scl_inter {intercept:g}")


def _check_space(header: Header) -> None:
    spacing = np.array(header["pixdim"][1 : min(3, int(header["dim"][0])) + 1], dtype=np.float64)
    low, high = SPACING_LIMITS_MM
    # not <=: NaN is an error too
    if not np.all((spacing >= low) & (spacing <= high)):
        raise HeaderDataError(f"its spacing is {tuple(spacing.tolist())} mm")
    if (unit := int(header["xyzt_units"]) & 7) not in MILLIMETRES:
        raise HeaderDataError(f"its unit of length has the code {unit}, no mm: readers take it for mm or convert it")
    for name in ("qform_code", "sform_code"):
        if not 0 <= int(header[name]) <= 5:
            raise HeaderDataError(f"{name} is {int(header[name])}")
    if header["qform_code"] > 0:
        try:
            with np.errstate(all="ignore"):
                affine = header.get_qform()
        except ValueError as error:
            raise HeaderDataError(f"its qform is no rotation: {error}") from None
        if not np.isfinite(affine).all():
            raise HeaderDataError("its qform contains NaN or infinite numbers")
    if header["sform_code"] > 0:
        _check_sform(header.get_sform(), spacing)


def _check_sform(affine: np.ndarray, spacing: np.ndarray) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and lengths.min() > 0):
        raise HeaderDataError("its sform contains NaN, infinite numbers or columns of zeros")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < PARALLEL:
        raise HeaderDataError("two axes of its sform are parallel")
    lengths = lengths[: len(spacing)]
    # ACDC's release stores its spacing in pixdim alone, beside an sform of unit columns
    if not is_close_spacing(lengths, spacing) and not is_close_spacing(lengths, np.ones_like(lengths)):
        raise HeaderDataError(
            f"its spacing is {_millimetres(spacing)} mm by pixdim and {_millimetres(lengths)} mm by the sform"
        )


def is_close_spacing(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two spacings (mm) are the same but for rounding."""
    return bool(np.allclose(ours, theirs, rtol=SPACING_TOLERANCE_MM, atol=0))


def _millimetres(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def stored_voxels(header: Header, content: bytes) -> np.ndarray:
    """Voxels as they are stored, unscaled, in index order (x, y, z, …); a view of the file's ``content``."""
    shape = tuple(int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1])
    count, offset = math.prod(shape), int(header["vox_offset"])
    return np.frombuffer(content, header.get_data_dtype(), count=count, offset=offset).reshape(shape, order="F")


def is_scaled(header: Header) -> bool:
    """Whether the voxels are not the values themselves (scl_slope, scl_inter)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    return not (slope in (0, 1) or math.isnan(slope)) or not (intercept == 0 or math.isnan(intercept))


def load_nifti(path: Path) -> tuple[bytes, Header]:
    """A whole file's uncompressed content and its header (NIfTI-1 or 2, as stored), checked.

    Raises:
        UserError: the file is missing, truncated, damaged or no NIfTI file; its header is not consistent; it contains
            NaN or infinite voxels.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = decompress(content)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, MemoryError, isal_zlib.error) as error:  # type: ignore[misc]  # isal's stubs give it no base
        raise UserError(f"{path} is truncated or damaged ({error}): copy it anew from its source") from None
    try:
        header = _parse(content)
    except HeaderDataError as error:
        raise UserError(f"{path} is not a NIfTI image ({error}): copy it anew from its source") from None
    if header["magic"] not in MAGIC:
        raise UserError(f"{path} is not a NIfTI image of one file: convert it to .nii.gz")
    try:
        _check_numbers(header)
        _check_space(header)
    except HeaderDataError as error:
        raise UserError(f"{path} has a header that can't be right ({error}): correct it, or copy it anew") from None
    itemsize = header.get_data_dtype().itemsize
    voxels = math.prod(int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1])
    expected = int(header["vox_offset"]) + voxels * itemsize
    if len(content) != expected:
        what = "is truncated" if len(content) < expected else "is longer than its header says"
        raise UserError(f"{path} {what} ({len(content)} of {expected} bytes): copy it anew from its source")
    values = stored_voxels(header, content)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} contains NaN or infinite voxels: replace them by numbers")
    return content, header
