"""Files that are not there to their last byte."""

import gzip

import nibabel
import numpy as np
import pytest

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_files import check_image_file


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
