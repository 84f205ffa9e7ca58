"""NIfTI files read to the last byte and written back with a header that every reader understands alike."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nifti_files import NIFTI_ENDINGS, is_close_spacing, is_scaled, load_nifti, stored_voxels

HEADER_BYTES = 348
NO_EXTENSIONS = bytes(4)
PERPENDICULAR = 1e-3  # of the cosine between two axes


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
        stored = stored_voxels(self.header, self.content).reshape(self.shape, order="F")
        if not is_scaled(self.header):
            return stored
        slope, intercept = self.header.get_slope_inter()
        return stored * slope + intercept


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
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    affine = header.get_best_affine()
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if is_close_spacing(lengths, spacing):
        return affine
    affine = affine.copy()
    affine[:3, :3] *= spacing / lengths
    return affine


def read_nifti(path: Path, *, dimensions: tuple[int, ...] = (3,)) -> NiftiVolume:
    """Read, check and parse a whole NIfTI-1 file.

    Raises:
        UserError: the file is missing, truncated, damaged, inconsistent (see `nifti_files.load_nifti`), sheared, or not
            of these dimensions.
    """
    content, header = load_nifti(path)
    if isinstance(header, nibabel.Nifti2Header):
        raise UserError(f"{path} is a NIfTI-2 file, which nnU-Net's usual reader can't read: save it as NIfTI-1")
    shape = tuple(int(side) for side in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:  # IBSR18 has a fourth dimension of one
        shape = shape[:-1]
    if len(shape) not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise UserError(f"{path} has {len(shape)} dimensions where {wanted} are needed: give single frames")
    affine = consistent_affine(header)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(directions.T @ directions - np.eye(3)).max() > PERPENDICULAR:
        raise UserError(
            f"{path} is sheared: its axes are not perpendicular by the sform, which neither a qform nor ITK can hold; "
            "resample it to perpendicular axes first"
        )
    return NiftiVolume(path, content, header, shape, affine)


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
    values = values.astype(values.dtype.newbyteorder("="), copy=False)  # as the header is
    header = nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_slope_inter(1, 0)  # where nibabel's own is NaN
    header["magic"] = b"n+1"
    header["vox_offset"] = HEADER_BYTES + len(NO_EXTENSIONS)
    header = _with_affine(header, affine)
    target.write_bytes(_compress(header.binaryblock + NO_EXTENSIONS + values.tobytes(order="F")))
