"""NIfTI files read to the last byte and written back with a header that every reader understands alike."""

import math
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnunetv2_levit.errors import UserError

SPACING_TOLERANCE_MM = 1e-3
NIFTI_ENDINGS = (".nii.gz", ".nii")
HEADER_BYTES = 348
NO_EXTENSIONS = bytes(4)
GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window


@dataclass(frozen=True)
class NiftiVolume:
    """A whole file in memory: uncompressed bytes, header as stored, shape without trailing ones, affine to mm."""

    path: Path
    content: bytes
    header: nibabel.Nifti1Header
    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along the array's axes."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))

    def values(self) -> np.ndarray:
        """Voxel values in index order (x, y, z), scaled where the header says so; a view of the content otherwise."""
        stored = np.frombuffer(
            self.content,
            dtype=self.header.get_data_dtype(),
            count=math.prod(self.shape),
            offset=int(self.header["vox_offset"]),
        ).reshape(self.shape, order="F")
        slope, intercept = self.header.get_slope_inter()
        return stored if slope in (None, 1.0) and not intercept else stored * slope + intercept


def find_nifti(folder: Path, stem: str) -> Path | None:
    """The NIfTI file of that stem in a folder, compressed or not, be it a broken link; None where there is none."""
    return next(
        (path for ending in NIFTI_ENDINGS if (path := folder / f"{stem}{ending}").exists() or path.is_symlink()), None
    )


def consistent_affine(header: nibabel.Nifti1Header) -> np.ndarray:
    """Affine with the spacing of ``pixdim`` and the orientation of the sform (else the qform).

    ACDC's release stores its spacing in ``pixdim`` alone, beside an sform of unit columns: readers that take the sform
    see 1 mm voxels.
    """
    spacing = np.abs(np.array(header["pixdim"][1:4], dtype=np.float64))
    affine = header.get_best_affine()
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(spacing == 0):
        return affine
    if np.any(lengths == 0):
        return np.diag([*spacing, 1.0])
    if np.allclose(lengths, spacing, atol=SPACING_TOLERANCE_MM):
        return affine
    affine = affine.copy()
    affine[:3, :3] *= spacing / lengths
    return affine


def read_nifti(path: Path, *, dimensions: tuple[int, ...] = (3,)) -> NiftiVolume:
    """Read and parse a whole file; compressed ones are checked against their checksum.

    Raises:
        UserError: the file is missing, truncated, damaged, not NIfTI, or not of these dimensions.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = _decompress(content)
        header = nibabel.Nifti1Header(content[:HEADER_BYTES])
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, isal_zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): copy it anew from its source") from None
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise UserError(f"{path} is not a NIfTI image ({error}): copy it anew from its source") from None
    shape = tuple(int(side) for side in header.get_data_shape())
    expected = int(header["vox_offset"]) + math.prod(shape) * header.get_data_dtype().itemsize
    if header["magic"] != b"n+1":
        raise UserError(f"{path} is not a NIfTI image of one file: convert it to .nii.gz")
    if len(content) < expected:
        raise UserError(f"{path} is truncated ({len(content)} of {expected} bytes): copy it anew from its source")
    while len(shape) > 3 and shape[-1] == 1:  # IBSR18 has a fourth dimension of one
        shape = shape[:-1]
    if len(shape) not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise UserError(f"{path} has {len(shape)} dimensions where {wanted} are needed: give single frames")
    return NiftiVolume(path, content, header, shape, consistent_affine(header))


def check_complete(path: Path) -> None:
    """Make sure that a file is there to its last byte: ITK reads a truncated NIfTI file as zeros without a word.

    Checks the compressed stream, and the length that a NIfTI-1 header promises; other files pass.

    Raises:
        UserError: the file is truncated or damaged.
    """
    if not path.name.endswith(NIFTI_ENDINGS):
        return
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = _decompress(content)
    except (OSError, EOFError, isal_zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): copy it anew from its source") from None
    try:
        header = nibabel.Nifti1Header(content[:HEADER_BYTES])
        expected = int(header["vox_offset"]) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    except (HeaderDataError, WrapStructError, ValueError):
        return  # not NIfTI-1: nnU-Net's reader says what it thinks of it
    if len(content) < expected:
        raise UserError(f"{path} is truncated ({len(content)} of {expected} bytes): copy it anew from its source")


def _decompress(content: bytes) -> bytes:
    """A gzip file's content, checked against its checksum."""
    stream = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
    whole = stream.decompress(content)
    if not stream.eof:
        raise EOFError("the compressed stream ends early")
    return igzip.decompress(content) if stream.unused_data else whole  # several members are rare


def _compress(content: bytes) -> bytes:
    # ISA-L's level 1 is several times faster than zlib's; no time stamp, so equal input gives equal files
    return igzip.compress(content, compresslevel=1, mtime=0)


def _with_affine(header: nibabel.Nifti1Header, affine: np.ndarray) -> nibabel.Nifti1Header:
    header = header.copy()
    header.set_data_shape(header.get_data_shape()[:3])  # without further dimensions of one
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return header


def write_image(volume: NiftiVolume, affine: np.ndarray, target: Path) -> None:
    """Write a ``.nii.gz`` with the stored voxels untouched and sform, qform and pixdim in agreement."""
    header = _with_affine(volume.header, affine)
    target.write_bytes(_compress(header.binaryblock + volume.content[HEADER_BYTES:]))


def write_array(values: np.ndarray, affine: np.ndarray, target: Path) -> None:
    """Write an array (x, y, z) as a ``.nii.gz`` of its own data type."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header["magic"] = b"n+1"
    header["vox_offset"] = HEADER_BYTES + len(NO_EXTENSIONS)
    header = _with_affine(header, affine)
    target.write_bytes(_compress(header.binaryblock + NO_EXTENSIONS + values.tobytes(order="F")))
