"""The one checked reader: files that are not whole or not consistent, other formats, and labels that are none."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_files import as_labels, check_image_file, read_images, read_label_file
from nnunetv2_levit.nifti_files import load_nifti


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_whole_files_pass(tmp_path, ending, kind):
    path = tmp_path / f"image{ending}"
    nibabel.save(kind(np.zeros((4, 5, 6), np.float32), np.eye(4)), path)
    check_image_file(path)


def test_other_formats_are_left_to_their_reader(tmp_path):
    path = tmp_path / "image.b2nd"
    path.write_bytes(b"anything")
    check_image_file(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_what_is_cut_off_is_found(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((4, 5, 6)), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated"):
        check_image_file(path)


def test_a_whole_stream_of_half_a_volume_is_found(tmp_path):
    path = tmp_path / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6)), np.eye(4)), path)
    compressed = tmp_path / "half.nii.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()[:600]))
    with pytest.raises(UserError, match="600 of 1312 bytes"):
        check_image_file(compressed)


def test_a_file_that_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"no file .*absent\.png"):
        check_image_file(tmp_path / "absent.png")


def _volume(path: Path, **fields: object) -> Path:
    """A little volume of 2 mm, with some fields of its header replaced."""
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0]))
    header = image.header
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F")))
    return path


UNUSUAL = {
    "nibabel's NaN for what is not scaled": {"scl_slope": np.nan, "scl_inter": np.nan},
    "a slope of zero": {"scl_slope": 0},
    "a scaled image": {"scl_slope": 2, "scl_inter": -7},
    "an unknown unit": {"xyzt_units": 0},
    "ACDC's spacing in pixdim alone": {"srow_x": [1, 0, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]},
    "neither qform nor sform": {"qform_code": 0, "sform_code": 0},
    "qfac of zero, which stands for one": {"pixdim": [0, 2, 2, 2, 0, 0, 0, 0]},
    "qfac of zero without a qform": {"pixdim": [0, 2, 2, 2, 0, 0, 0, 0], "qform_code": 0},
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_headers_that_are_unusual_and_clear_pass(tmp_path, case):
    check_image_file(_volume(tmp_path / "image.nii.gz", **UNUSUAL[case]))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read_alike(tmp_path, order):
    path = tmp_path / "image.nii.gz"
    values = np.random.default_rng(0).integers(0, 900, (3, 4, 5)).astype(np.int16)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]), header), path)
    assert load_nifti(path)[1].endianness == order
    array, properties = read_images([path], SimpleITKIO())
    np.testing.assert_array_equal(array[0], values.transpose(2, 1, 0))
    assert properties["spacing"] == [2, 2, 2]


def test_a_stream_of_several_members_is_read_to_the_end(tmp_path):
    path = _volume(tmp_path / "image.nii.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert load_nifti(path)[0] == content


def _write(path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 200, (5, 20, 20)).astype(np.uint8)
    kind, ending = path.name.split("_")[0], path.suffix
    if ending in (".png", ".bmp"):
        Image.fromarray(volume[0]).save(path)
    elif ending == ".tif":
        with tifffile.TiffWriter(path) as writer:
            for page in volume:
                writer.write(page, compression="zlib" if kind == "compressed" else None, contiguous=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(path), kind == "compressed")


FORMATS = [
    *("raw_a.mha", "compressed_a.mha", "raw_a.nrrd", "compressed_a.nrrd", "raw_a.gipl"),
    *("raw_a.png", "raw_a.bmp", "raw_a.tif", "compressed_a.tif"),
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9, "all but 1"])
def test_files_of_all_formats_are_whole(tmp_path, name, kept):
    path = tmp_path / name
    _write(path)
    check_image_file(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] if kept == "all but 1" else content[: int(kept * len(content))])
    with pytest.raises(UserError, match=rf"{name} is truncated or damaged"):
        check_image_file(path)


@pytest.mark.parametrize("name", ["compressed_a.mha", "compressed_a.nrrd", "raw_a.png"])
def test_a_changed_byte_is_found_where_there_is_a_checksum(tmp_path, name):
    path = tmp_path / name
    _write(path)
    content = bytearray(path.read_bytes())
    content[-50] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged"):
        check_image_file(path)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_what_is_not_finite_is_found_in_every_format(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    values = np.ones((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    with pytest.raises(UserError, match=rf"image{ending} contains NaN or infinite voxels"):
        read_images([path], SimpleITKIO())


def test_channels_that_differ_are_named(tmp_path):
    paths = [_volume(tmp_path / "a_0000.nii.gz"), tmp_path / "a_0001.nii.gz"]
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 4), np.int16)), str(paths[1]))
    with pytest.raises(UserError, match=r"a_0000.nii.gz, .*a_0001.nii.gz can't be read .*differ in shape or spacing"):
        read_images(paths, SimpleITKIO())


def test_a_label_file_is_read_as_integers(tmp_path):
    path = tmp_path / "label.nii.gz"
    values = np.random.default_rng(0).choice([0, 1, 300], (5, 4, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    labels, properties = read_label_file(path, SimpleITKIO(), allowed={0, 1, 300})
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, values)
    assert properties["spacing"] == [1, 1, 1]
    with pytest.raises(UserError, match="the label 300, none of"):
        read_label_file(path, SimpleITKIO(), allowed={0, 1})


FOREIGN = {
    "wraps in a byte": (np.array([0, 257]), "257"),
    "wraps in two bytes": (np.array([0, 65537]), "65537"),
    "negative": (np.array([0, -255]), "-255"),
    "undeclared": (np.array([0, 7], np.uint8), "7"),
    "a fraction": (np.array([0, 1.4]), "1.4"),
    "NaN": (np.array([0, np.nan]), "nan"),
    "infinite": (np.array([0, -np.inf]), "-inf"),
    "beyond all integers": (np.array([0, 1e30], np.float32), r"1e\+30"),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("allowed", [{0, 1, 2}, {0, 1, 300}, {0, 1, 70000}])
def test_no_value_becomes_another_label(case, allowed):
    values, named = FOREIGN[case]
    with pytest.raises(UserError, match=f"a.nii.gz contains the label {named}, none of"):
        as_labels(values, path=Path("a.nii.gz"), allowed=allowed)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_declared_labels_keep_their_values(dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    labels = as_labels(values, path=Path("a.nii.gz"), allowed={0, 1, 2})
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, values)


@pytest.mark.parametrize("values", [np.array(["0", "1"]), np.array([0, 1j]), np.array([None])])
def test_what_is_no_number_is_no_label(values):
    with pytest.raises(UserError, match="no labels"):
        as_labels(values, path=Path("a.npz"), allowed={0, 1})


def test_every_real_file_passes(real_acdc):
    files = [path for path in real_acdc.parent.rglob("*") if path.suffix in (".gz", ".png")]
    # all of the small folders, and some patients: the headers of the others are the same
    files = [path for path in files if "training" not in path.parts or path.parent.name.endswith("7")]
    assert len(files) > 300
    for path in files:
        check_image_file(path)
