"""Reading cases whole and checked, from the file formats of the releases."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_levit.dataset_conversion.cases import LoadedCase, RawCase, ReadOptions
from nnunetv2_levit.dataset_conversion.nifti import NiftiVolume, read_nifti
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_files import as_labels, check_unscaled
from nnunetv2_levit.nifti_files import SPACING_TOLERANCE_MM

AFFINE_TOLERANCE_MM = 1e-2
CORNER_TOLERANCE = 0.1  # of the shortest side of a voxel, at the corner that is furthest from the origin
LARGEST_LABEL = 255  # converted labels are bytes
MASK_THRESHOLD = 128  # of 8-bit masks
COLOUR_TOLERANCE = 64  # between the channels of a grey mask that was stored as a lossy colour picture
MAX_ARRAY_BYTES = 16 * 2**30  # a CT volume of 512x512x1000 in float64 has 2 GiB


def digest_of(channels: Iterable[np.ndarray]) -> str:
    """SHA-256 over shapes and values in fp32, as nnU-Net reads them: by it duplicates are found, whatever their headers
    and data types."""
    digest = hashlib.sha256()
    for values in channels:
        with np.errstate(over="ignore"):
            canonical = np.asfortranarray(values, dtype="<f4")
        digest.update(str(canonical.shape).encode())
        digest.update(canonical.T.data)  # its memory in the order in which it lies there
    return digest.hexdigest()


def map_labels(values: np.ndarray, path: Path, options: ReadOptions, allowed: frozenset[int]) -> np.ndarray:
    """Labels as uint8, mapped and checked.

    Raises:
        UserError: a value that is not declared.
    """
    known = allowed if options.label_map is None else frozenset(options.label_map)
    labels = as_labels(values, path=path, allowed=[value for value in known if value <= LARGEST_LABEL])
    if options.label_map is not None:
        table = np.zeros(256, np.uint8)
        for source, target in options.label_map.items():
            table[source] = target
        return table[labels]
    return labels


def _check_finite(values: np.ndarray, path: Path) -> None:
    with np.errstate(over="ignore"):  # nnU-Net reads in fp32, where larger numbers are infinite
        finite = values.dtype.kind != "f" or np.isfinite(values.astype(np.float32, copy=False)).all()
    if not finite:
        raise UserError(f"{path} contains NaN or infinite voxels: replace them before converting")


def _same_shape(shape: tuple[int, ...], path: Path, expected: tuple[int, ...], first: Path) -> None:
    if tuple(shape) != tuple(expected):
        raise UserError(f"{path} has shape {tuple(shape)} and {first} has {tuple(expected)}: they must be equal")


def _same_space(volume: NiftiVolume, first: NiftiVolume, options: ReadOptions) -> str | None:
    """Check that two volumes lie in one space; what was done where they don't and the header is to be fixed."""
    far = np.array([*first.shape[:3], 1])
    same = np.allclose(volume.affine, first.affine, atol=AFFINE_TOLERANCE_MM)
    if same and np.abs(volume.affine @ far - first.affine @ far).max() <= CORNER_TOLERANCE * min(first.spacing):
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
        check_unscaled(volume.path, volume.header)
        _same_shape(volume.shape, volume.path, first.shape, first.path)
        remarks.append(_same_space(volume, first, options))
        labels = map_labels(volume.values(), volume.path, options, allowed)
    digest = digest_of(volume.values() for volume in channels)
    return LoadedCase(channels, labels, first.affine, digest, [remark for remark in remarks if remark])


def read_picture(path: Path, *, frame: int | None = None) -> np.ndarray:
    """A picture as (row, column) or (row, column, RGB), decoded to its last pixel; ``frame`` of a stack such as TIFF.

    Raises:
        UserError: the file is missing, truncated or no picture, has several frames where none is chosen, or colours
            other than grey, RGB or a palette.
    """
    try:
        with Image.open(path) as image:
            # a camera's JPEG (MPO) may hold a preview behind the picture itself
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frame is None and frames != 1:
                raise UserError(f"{path} has {frames} frames where one picture is expected: save each on its own")
            if frame is not None:
                image.seek(frame)
            encodings = [str(tile[3]) for tile in image.tile]
            if any(";16" in encoding for encoding in encodings):  # Pillow would cut 16 bits of RGB to 8
                raise UserError(f"{path} has 16 bits a channel where 8 are expected: rescale it to 8 bits first")
            image.load()
            return _opaque(image, path)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} is too large for a picture of this dataset ({error}): give the release's own"
        ) from None
    except Exception as error:  # Pillow raises exceptions of many kinds at damaged files
        raise UserError(f"{path} is truncated or no picture ({error}): copy it anew from its source") from None


def _opaque(image: Image.Image, path: Path) -> np.ndarray:
    """Pixels of a picture in black and white, grey, a palette or RGB, without an alpha channel that hides nothing."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{path} has transparent pixels, whose values mean nothing: save it without transparency")
        image = image.convert(image.mode.removesuffix("A"))
    if image.mode not in ("1", "L", "RGB"):
        raise UserError(
            f"{path} has pixels of mode {image.mode} where 8 bits of grey or RGB are expected: convert it without loss "
            "first"
        )
    return np.array(image)


def binary_mask(values: np.ndarray, path: Path) -> np.ndarray:
    """A mask of 0 and 1 from one of 0 and 255, 0 and 1, or a lossily stored one of nearly 0 and 255.

    Raises:
        UserError: values in between, which no compression explains, or colours.
    """
    if values.ndim == 3:
        if np.ptp(values, axis=2).max(initial=0) > COLOUR_TOLERANCE:
            raise UserError(f"{path} is a colour picture and no mask of 0 and 255: save its mask in grey")
        values = values.max(axis=2)
    if values.max(initial=0) <= 1:
        return values.astype(np.uint8)
    between = float(((values > 64) & (values < 192)).mean())
    if between > 0.02:
        raise UserError(
            f"{path} is no mask of 0 and 255: {100 * between:.0f} % of its pixels lie between: correct the file"
        )
    if values.max() < 192:
        raise UserError(
            f"{path} is no mask of 0 and 255 or of 0 and 1: its largest value is {values.max()}: correct the file"
        )
    return (values >= MASK_THRESHOLD).astype(np.uint8)


def read_pictures(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A case of 2D pictures with a mask of two values; colour images stay in one file of three channels."""
    channels = [read_picture(path, frame=case.part) for path in case.images]
    channels = [channel.astype(np.uint8) * 255 if channel.dtype == bool else channel for channel in channels]
    labels = None
    if case.label is not None:
        mask = read_picture(case.label, frame=case.part)
        _same_shape(mask.shape[:2], case.label, channels[0].shape[:2], case.images[0])
        labels = map_labels(binary_mask(mask, case.label), case.label, options, allowed)
    return LoadedCase(channels, labels, None, digest_of(channels))


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
        check_unscaled(mask.path, mask.header)
        _same_shape(mask.shape, mask.path, channels[0].shape, path)
        remarks = [remark] if (remark := _same_space(mask, volume, options)) else []
        labels = map_labels(mask.values(), mask.path, options, allowed)
    return LoadedCase(channels, labels, volume.affine, digest_of([values]), remarks)


def read_transunet_arrays(case: RawCase, options: ReadOptions, allowed: frozenset[int]) -> LoadedCase:
    """A volume from TransUNet's slices (``image`` and ``label`` in .npz, one a slice) or volume (.npy.h5).

    Arrays there have index order (slice, row, column); rows run along y.
    """
    images, labels = [], []
    for path in case.images:
        image, label = _read_arrays(path)
        _same_shape(label.shape, path, image.shape, path)
        images.append(image if image.ndim == 3 else image[None])
        _same_shape(images[-1].shape[1:], path, images[0].shape[1:], case.images[0])
        _check_finite(images[-1], path)
        _check_finite(label, path)
        labels.append(map_labels(label if label.ndim == 3 else label[None], path, options, allowed))
    image, label = np.concatenate(images), np.concatenate(labels)
    affine = np.diag([*(options.spacing or (1.0, 1.0, 1.0)), 1.0])
    volume = np.ascontiguousarray(image.transpose(2, 1, 0))
    return LoadedCase([volume], label.transpose(2, 1, 0), affine, digest_of([volume]))


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image as float32 and label of a slice (.npz) or a volume (.h5).

    Raises:
        UserError: the file can't be read, lacks one of them, or holds arrays of another kind or dimension.
    """
    slices = path.suffix == ".npz"
    try:
        image, label = _npz_arrays(path) if slices else _h5_arrays(path)
    except UserError:
        raise
    except Exception as error:  # zip, numpy and HDF5 raise exceptions of many kinds at damaged files
        raise UserError(f"{path} is truncated or holds no image and label ({error}): copy it anew") from None
    for name, array in (("image", image), ("label", label)):
        if array.dtype.kind not in "biuf":
            raise UserError(f"{path} holds {name} of type {array.dtype}, no numbers: copy it anew")
        if array.ndim != (2 if slices else 3) or array.size == 0:
            kind = "a slice" if slices else "a volume"
            raise UserError(f"{path} holds {name} of shape {array.shape}, which is not that of {kind}: copy it anew")
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused as such
        return image.astype(np.float32), label


def _npz_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        if sum(member.file_size for member in arrays.zip.infolist()) > MAX_ARRAY_BYTES:
            raise UserError(f"{path} unpacks to more than {MAX_ARRAY_BYTES // 2**30} GiB: copy it anew")
        return arrays["image"], arrays["label"]


def _h5_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    with h5py.File(path) as file:
        for name in ("image", "label"):
            if not isinstance(file[name], h5py.Dataset):
                raise UserError(f"{path} holds a group {name} where an array is expected: copy it anew")
            if file[name].nbytes > MAX_ARRAY_BYTES:
                raise UserError(f"{path} unpacks to more than {MAX_ARRAY_BYTES // 2**30} GiB: copy it anew")
        return file["image"][()], file["label"][()]
