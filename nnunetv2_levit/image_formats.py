"""Whether files of nnU-Net's formats beside NIfTI are there to their last byte."""

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path

from isal import isal_zlib
from PIL import Image

from nnunetv2_levit.nifti_files import decompress

# bytes of a voxel; types of other names are left to ITK
META_IMAGE_TYPES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}
NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "signed short", "int16", "int16_t", "ushort", "unsigned short", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    "double": 8,
}
GIPL_TYPES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
GIPL_HEADER_BYTES = 256
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # with its checksum, which Pillow does not check


class DamagedError(ValueError):
    """Why a file can't be whole."""


def _check_length(found: int, expected: int) -> None:
    if found != expected:
        raise DamagedError(f"it holds {found} bytes of voxels where its header says {expected}")


def check_meta_image(path: Path) -> None:
    """A MetaImage (.mha): the data's length, and the checksum of compressed data, which ITK ignores."""
    content = path.read_bytes()
    end = re.search(rb"^ElementDataFile *= *(.*?)\r?\n", content, re.MULTILINE)
    if end is None or not content.startswith(b"ObjectType"):
        raise DamagedError("it has no header of a MetaImage")
    if end[1].strip() != b"LOCAL":
        return  # the voxels lie in another file
    lines = content[: end.start()].decode("latin-1").splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    data = content[end.end() :]
    if entries.get("CompressedData", "False") == "True":
        _check_length(len(data), int(entries.get("CompressedDataSize", len(data))))
        data = isal_zlib.decompress(data)
    size = META_IMAGE_TYPES.get(entries["ElementType"].removeprefix("MET_"))
    if size is not None:
        channels = int(entries.get("ElementNumberOfChannels", 1))
        _check_length(len(data), size * channels * math.prod(map(int, entries["DimSize"].split())))


def check_nrrd(path: Path) -> None:
    """An NRRD file: the data's length, and the checksum of compressed data."""
    content = path.read_bytes()
    end = re.search(rb"\r?\n\r?\n", content)
    if end is None or not content.startswith(b"NRRD"):
        raise DamagedError("it has no header of an NRRD file")
    lines = content[: end.start()].decode("latin-1").splitlines()
    entries = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "data file" in entries or "datafile" in entries:
        return  # the voxels lie in another file
    data = content[end.end() :]
    encoding, size = entries["encoding"].lower(), NRRD_TYPES.get(entries["type"].lower())
    if encoding in ("gzip", "gz"):
        data = decompress(data)
    elif encoding != "raw":
        return  # text and bzip2, which ITK does not write
    if size is not None:
        _check_length(len(data), size * math.prod(map(int, entries["sizes"].split())))


def check_gipl(path: Path) -> None:
    """A GIPL file: the data's length."""
    content = path.read_bytes()
    if len(content) < GIPL_HEADER_BYTES:
        raise DamagedError("it has no header of a GIPL file")
    *sides, code = struct.unpack(">5H", content[:10])
    if code in GIPL_TYPES:
        _check_length(len(content) - GIPL_HEADER_BYTES, GIPL_TYPES[code] * math.prod(max(1, side) for side in sides))


def check_picture(path: Path) -> None:
    """A PNG or BMP file: of a size that fits into memory; PNG by the checksums of its parts, others by decoding."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            if image.format == "PNG":
                image.verify()
                if PNG_END not in path.read_bytes():
                    raise DamagedError("its end is missing")
            else:
                image.load()
    except Image.DecompressionBombError as error:
        raise DamagedError(f"it would be too large, {error}") from None


def check_tiff(path: Path) -> None:
    """A TIFF file: neither its chain of pages nor a page's pixels leave the file.

    Where the chain does, readers take the pages before it.
    """
    import tifffile

    content = path.read_bytes()
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        raise DamagedError("it has no header of a TIFF file")
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43  # BigTIFF
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    (offset,) = struct.unpack_from(order + offset_format, content, 8 if big else 4)
    seen = set()
    while offset:
        if offset in seen:
            raise DamagedError("its chain of pages is a circle")
        seen.add(offset)
        (entries,) = struct.unpack_from(order + count_format, content, offset)
        following = offset + struct.calcsize(count_format) + entries * entry_bytes
        (offset,) = struct.unpack_from(order + offset_format, content, following)
    if not seen:
        raise DamagedError("it has no page")
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                if start + length > len(content):
                    raise DamagedError("pixels are missing")


CHECKS: dict[str, Callable[[Path], None]] = {
    ".mha": check_meta_image,
    ".nrrd": check_nrrd,
    ".gipl": check_gipl,
    ".png": check_picture,
    ".bmp": check_picture,
    ".tif": check_tiff,
    ".tiff": check_tiff,
}
