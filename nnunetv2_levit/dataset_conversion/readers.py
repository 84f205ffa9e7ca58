"""Reading cases whole and checked, from the file formats of the releases."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nnunetv2_levit.dataset_conversion.cases import LoadedCase, RawCase, ReadOptions
from nnunetv2_levit.dataset_conversion.nifti import SPACING_TOLERANCE_MM, NiftiVolume, read_nifti
from nnunetv2_levit.errors import UserError

AFFINE_TOLERANCE_MM = 1e-2
MASK_THRESHOLD = 128  # of 8-bit masks


def digest_of(contents: Iterable[bytes]) -> str:
    """SHA-256 over the images' content, by which duplicates are found."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def map_labels(values: np.ndarray, path: Path, options: ReadOptions, allowed: frozenset[int]) -> np.ndarray:
    """Labels as uint8, mapped and checked.

    Raises:
        UserError: a value that is not declared.
    """
    known = allowed if options.label_map is None else frozenset(options.label_map)
    labels = values.astype(np.uint8)
    # counting is many times faster than sorting; a label that is no byte differs from its byte
    foreign = [] if np.array_equal(labels, values) else np.unique(values[labels != values]).tolist()
    foreign += [v for v in np.flatnonzero(np.bincount(labels.ravel(order="K"))).tolist() if v not in known]
    if foreign:
        raise UserError(f"{path} contains the label {foreign[0]:g}, none of {sorted(known)}: correct the file")
    if options.label_map is not None:
        table = np.zeros(256, np.uint8)
        for source, target in options.label_map.items():
            table[source] = target
        labels = table[labels]
    return labels


def _check_finite(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} contains NaN or infinite voxels: replace them before converting")


def _same_shape(shape: tuple[int, ...], path: Path, expected: tuple[int, ...], first: Path) -> None:
    if tuple(shape) != tuple(expected):
        raise UserError(f"{path} has shape {tuple(shape)} and {first} has {tuple(expected)}: they must be equal")


def _same_space(volume: NiftiVolume, first: NiftiVolume, options: ReadOptions) -> str | None:
    """Check that two volumes lie in one space; what was done where they don't and the header is to be fixed."""
    if np.allclose(volume.affine, first.affine, atol=AFFINE_TOLERANCE_MM):
        return None
    if options.fix_geometry:
        return f"{volume.path.name} took the header of {first.path.name}"
    mend = "correct it, or add --fix-geometry to take the image's header"
    if not np.allclose(volume.spacing, first.spacing, atol=SPACING_TOLERANCE_MM):
        raise UserError(
            f"{volume.path} has spacing {volume.spacing} mm and {first.path} has {first.spacing} mm: {mend}"
        )
    raise UserError(f"{volume.path} lies elsewhere in space than {first.path} (origin or direction): {mend}")


def read_volumes(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A case of NIfTI files: every channel and the label in one space, image voxels untouched."""
    channels = [read_nifti(path) for path in case.images]
    first = channels[0]
    remarks = []
    for volume in channels:
        _same_shape(volume.shape, volume.path, first.shape, first.path)
        _check_finite(volume.values(), volume.path)
        remarks.append(_same_space(volume, first, options))
    labels = None
    if case.label is not None:
        volume = read_nifti(case.label)
        _same_shape(volume.shape, volume.path, first.shape, first.path)
        remarks.append(_same_space(volume, first, options))
        labels = map_labels(volume.values(), volume.path, options, allowed)
    digest = digest_of(volume.content for volume in channels)
    return LoadedCase(channels, labels, first.affine, digest, [remark for remark in remarks if remark])


def read_picture(path: Path, *, frame: int | None = None) -> np.ndarray:
    """A picture as (row, column) or (row, column, RGB), decoded to its last pixel; ``frame`` of a stack such as TIFF.

    Raises:
        UserError: the file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            if frame is not None:
                image.seek(frame)
            image.load()
            if image.mode == "P":
                image = image.convert("RGB")
            return np.array(image)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, SyntaxError, TypeError, ValueError, zlib.error, UnidentifiedImageError) as error:
        raise UserError(f"{path} is truncated or no picture ({error}): copy it anew from its source") from None


def binary_mask(values: np.ndarray, path: Path) -> np.ndarray:
    """A mask of 0 and 1 from one of 0 and 255, 0 and 1, or a lossily stored one of nearly 0 and 255.

    Raises:
        UserError: values in between, which no compression explains.
    """
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    if values.max(initial=0) <= 1:
        return values.astype(np.uint8)
    between = float(((values > 64) & (values < 192)).mean())
    if between > 0.02:
        raise UserError(
            f"{path} is no mask of 0 and 255: {100 * between:.0f} % of its pixels lie between: correct the file"
        )
    return (values >= MASK_THRESHOLD).astype(np.uint8)


def read_pictures(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A case of 2D pictures with a mask of two values; colour images stay in one file of three channels."""
    channels = [read_picture(path, frame=case.part) for path in case.images]
    if any(channel.dtype != np.uint8 for channel in channels):
        channels = [_as_uint8(channel, path) for channel, path in zip(channels, case.images, strict=True)]
    channels = [channel[..., :3] if channel.ndim == 3 else channel for channel in channels]
    labels = None
    if case.label is not None:
        mask = read_picture(case.label, frame=case.part)
        _same_shape(mask.shape[:2], case.label, channels[0].shape[:2], case.images[0])
        labels = map_labels(binary_mask(mask, case.label), case.label, options, allowed)
    return LoadedCase(channels, labels, None, digest_of(channel.tobytes() for channel in channels))


def _as_uint8(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    raise UserError(
        f"{path} has pixels of type {values.dtype} where 8 bits are expected: convert it without loss first"
    )


def read_channels(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A case of one NIfTI file that may hold several channels in a fourth dimension (the Decathlon's form)."""
    (path,) = case.images
    volume = read_nifti(path, dimensions=(3, 4))
    if len(volume.shape) == 3:
        return read_volumes(case, options, allowed)
    values = volume.values()
    _check_finite(values, path)
    channels = [values[..., index] for index in range(values.shape[3])]
    labels, remarks = None, []
    if case.label is not None:
        mask = read_nifti(case.label)
        _same_shape(mask.shape, mask.path, channels[0].shape, path)
        remarks = [remark] if (remark := _same_space(mask, volume, options)) else []
        labels = map_labels(mask.values(), mask.path, options, allowed)
    return LoadedCase(channels, labels, volume.affine, digest_of([volume.content]), remarks)


def read_transunet_arrays(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A volume from TransUNet's slices (``image`` and ``label`` in .npz, one a slice) or volume (.npy.h5).

    Arrays there have index order (slice, row, column); rows run along y.
    """
    images, labels = [], []
    for path in case.images:
        image, label = _read_arrays(path)
        _same_shape(label.shape, path, image.shape, path)
        images.append(image if image.ndim == 3 else image[None])
        labels.append(label if label.ndim == 3 else label[None])
        _same_shape(images[-1].shape[1:], path, images[0].shape[1:], case.images[0])
    image = np.concatenate(images).astype(np.float32)
    _check_finite(image, case.images[0])
    label = map_labels(np.concatenate(labels), case.images[0], options, allowed)
    affine = np.diag([*(options.spacing or (1.0, 1.0, 1.0)), 1.0])
    volume = np.ascontiguousarray(image.transpose(2, 1, 0))
    return LoadedCase([volume], label.transpose(2, 1, 0), affine, digest_of([volume.tobytes()]))


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["image"], arrays["label"]
        import h5py

        with h5py.File(path) as arrays:
            return arrays["image"][()], arrays["label"][()]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is truncated or holds no image and label ({error}): copy it anew") from None
