"""``evaluate`` of damaged label files, of labels that are none, and of damaged probabilities: one sentence each."""

import gzip
import json
from io import BytesIO

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_levit.evaluation.stored import load_evaluation
from tests.evaluation.conftest import LABELS, heart, write_labels
from tests.support.faults import assert_refused, run, snapshot

FILE = "a.nii.gz"


@pytest.fixture
def dataset(tmp_path):
    """One case, its prediction a column off."""
    write_labels(tmp_path / "labelsTr" / FILE, heart())
    write_labels(tmp_path / "predicted" / FILE, heart(1))
    describe(tmp_path, LABELS)
    return tmp_path


def describe(folder, labels, ending=".nii.gz"):
    description = {"labels": labels, "file_ending": ending, "channel_names": {"0": "MRI"}, "name": "ACDC"}
    (folder / "dataset.json").write_text(json.dumps(description))


def evaluate(capsys, folder, *more):
    return run(capsys, "evaluate", "-p", folder / "predicted", "-g", folder / "labelsTr", *more)


def stored(values):
    """Replace the voxels by a function of them, keeping space."""

    def damage(path):
        image = sitk.ReadImage(str(path))
        array = values(sitk.GetArrayFromImage(image))
        changed = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))

    return damage


def header(**fields):
    """Set fields of the header, and leave the rest of the file."""

    def damage(path):
        image = nibabel.load(path)
        content = image.dataobj.get_unscaled().tobytes(order="F")
        changed = image.header.copy()
        changed["vox_offset"] = 352
        for name, value in fields.items():
            changed[name] = value
        path.write_bytes(gzip.compress(changed.binaryblock + bytes(4) + content))

    return damage


def some(label, value, dtype):
    """The voxels of one label with another value."""

    def values(array):
        array = array.astype(dtype)
        array[array == label] = value
        return array

    return stored(values)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS = {
    "half a file": (half, ["truncated or damaged"]),
    "empty": (lambda path: path.write_bytes(b""), ["truncated or damaged", "empty"]),
    "text": (lambda path: path.write_text("404"), ["no gzip file"]),
    "bytes after the end": (lambda path: path.write_bytes(path.read_bytes() + b"more"), ["followed by something else"]),
    "label 65537": (some(1, 65537, np.int32), ["the label 65537", "none of [0, 1, 2, 3]"]),
    "multiples of 65537": (stored(lambda array: array.astype(np.int32) * 65537), ["the label 65537"]),
    "undeclared": (some(1, 7, np.uint8), ["the label 7"]),
    "negative": (some(1, -255, np.int16), ["the label -255"]),
    "256 more": (some(1, 257, np.uint16), ["the label 257"]),
    "NaN": (some(1, np.nan, np.float32), ["NaN or infinite"]),
    "infinite": (some(1, np.inf, np.float32), ["NaN or infinite"]),
    "fractions": (stored(lambda array: array.astype(np.float32) * 0.4), ["the label 0.4"]),
    "colours": (stored(lambda array: np.stack([array] * 3, axis=-1)), ["shape is [24, 24, 3, 1, 3]"]),
    "scaled labels": (header(scl_slope=2, scl_inter=0), ["scl_slope 2", "store the labels themselves"]),
    "shifted labels": (header(scl_slope=1, scl_inter=1), ["scl_inter 1"]),
    "infinite intercept": (header(scl_slope=1, scl_inter=np.inf), ["scl_inter inf"]),
    "slope of zero with an intercept": (header(scl_slope=0, scl_inter=1), ["scl_slope of 0"]),
    "offset of NaN": (header(vox_offset=np.nan), ["vox_offset"]),
    "voxels in the header": (header(vox_offset=0), ["vox_offset"]),
    "late voxels": (header(vox_offset=368), ["truncated"]),
    "negative side": (header(dim=[3, 24, -24, 3, 1, 1, 1, 1]), ["shape", "-24"]),
    "side of zero": (header(dim=[3, 24, 0, 3, 1, 1, 1, 1]), ["shape"]),
    "too many sides": (header(dim=[300, 24, 24, 3, 1, 1, 1, 1]), ["300 dimensions"]),
    "fewer slices": (header(dim=[3, 24, 24, 2, 1, 1, 1, 1]), ["longer than its header says"]),
    "bits": (header(bitpix=16), ["bitpix"]),
    "complex": (header(datatype=32, bitpix=64), ["complex"]),
    "RGB": (header(datatype=128, bitpix=24), ["RGB"]),
    "spacing of zero": (header(pixdim=[1, 0, 1.5, 10, 0, 0, 0, 0]), ["spacing"]),
    "spacing of NaN": (header(pixdim=[1, np.nan, 1.5, 10, 0, 0, 0, 0]), ["spacing"]),
    "absurd spacing": (header(pixdim=[1, 1e30, 1.5, 10, 0, 0, 0, 0]), ["spacing"]),
    "negative spacing": (header(pixdim=[1, -1.5, 1.5, 10, 0, 0, 0, 0]), ["spacing"]),
    "two spacings": (header(pixdim=[1, 3, 3, 10, 0, 0, 0, 0]), ["by pixdim", "by the sform"]),
    "metres": (header(xyzt_units=1), ["unit of length"]),
    "sform of NaN": (header(srow_x=[np.nan, 0, 0, 0]), ["sform"]),
}


@pytest.mark.parametrize("which", ["predicted", "labelsTr"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_named_and_nothing_is_scored(dataset, capsys, which, fault):
    damage, words = FAULTS[fault]
    damage(dataset / which / FILE)
    before = snapshot(dataset)
    assert_refused(evaluate(capsys, dataset), f"{which}/{FILE}", *words)
    assert snapshot(dataset) == before


def test_the_ignore_label_is_for_the_truth_alone(dataset, capsys):
    describe(dataset, {**LABELS, "ignore": 4})
    ignored = heart()
    ignored[:, :4] = 4
    write_labels(dataset / "labelsTr" / FILE, ignored)
    assert evaluate(capsys, dataset).code == 0
    write_labels(dataset / "predicted" / FILE, ignored)
    assert_refused(evaluate(capsys, dataset), f"predicted/{FILE}", "the label 4")


def test_labels_beyond_a_byte_are_scored(dataset, capsys):
    describe(dataset, {"background": 0, "RV": 1, "MYO": 300, "LV": 40000})
    table = np.array([0, 1, 300, 40000], np.uint16)
    for folder in ("predicted", "labelsTr"):
        stored(lambda array: table[array])(dataset / folder / FILE)
    assert evaluate(capsys, dataset).code == 0
    summary = load_evaluation(dataset / "predicted" / "evaluation")["summary"]
    assert [summary[name]["dice"]["mean"] for name in ("RV", "MYO")] == pytest.approx([0.75, 0.85], abs=0.1)


PICTURE_FAULTS = {
    "colours": (lambda path: Image.new("RGB", (24, 24), (1, 1, 1)).save(path), ["3 channels"]),
    "half a file": (half, ["truncated or damaged"]),
    "255 for 1": (lambda path: Image.fromarray((heart()[0] > 0).astype(np.uint8) * 255).save(path), ["the label 255"]),
    "16 bits": (lambda path: Image.fromarray(heart()[0].astype(np.uint16) * 257).save(path), ["the label 257"]),
}


@pytest.mark.parametrize("which", ["predicted", "labelsTr"])
@pytest.mark.parametrize("fault", PICTURE_FAULTS)
def test_a_damaged_picture_is_named(tmp_path, capsys, which, fault):
    describe(tmp_path, LABELS, ".png")
    for folder in ("predicted", "labelsTr"):
        (tmp_path / folder).mkdir()
        Image.fromarray(heart()[0]).save(tmp_path / folder / "a.png")
    assert evaluate(capsys, tmp_path).code == 0
    damage, words = PICTURE_FAULTS[fault]
    damage(tmp_path / which / "a.png")
    assert_refused(evaluate(capsys, tmp_path), f"{which}/a.png", *words)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path, capsys, monkeypatch):
    describe(tmp_path, LABELS, ".png")
    for folder in ("predicted", "labelsTr"):
        (tmp_path / folder).mkdir()
        Image.fromarray(heart()[0]).save(tmp_path / folder / "a.png")
    for limit in (24 * 24 - 1, 24 * 24 // 2 - 1):  # Pillow warns, and refuses beyond twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        outcome = evaluate(capsys, tmp_path)
        assert_refused(outcome, "a.png", "too large")
        assert "DecompressionBomb" not in outcome.err  # Pillow's warning is no sentence for a user


def probabilities():
    values = np.zeros((2, 1, 24, 24), np.float32)
    values[1] = heart()[0] > 0
    values[0] = 1 - values[1]
    return values


PROBABILITY_FAULTS = {
    "strings": (lambda path: np.savez(path, probabilities=np.full((2, 1, 24, 24), "half")), ["type"]),
    "objects": (lambda path: np.savez(path, probabilities=np.full((2, 1, 24, 24), None)), ["no array"]),
    "another name": (lambda path: np.savez(path, softmax=probabilities()), ["no array 'probabilities'"]),
    "another shape": (lambda path: np.savez(path, probabilities=probabilities()[..., :20]), ["shape", "(24, 24)"]),
    "turned": (lambda path: np.savez(path, probabilities=probabilities().reshape(2, 1, 12, 48)), ["shape"]),
    "one number": (lambda path: np.savez(path, probabilities=np.float32(1)), ["shape ()"]),
    "NaN": (lambda path: np.savez(path, probabilities=probabilities() * np.nan), ["outside 0 to 1"]),
    "logits": (lambda path: np.savez(path, probabilities=probabilities() * 9 - 4), ["outside 0 to 1"]),
    "one class": (lambda path: np.savez(path, probabilities=probabilities()[:1]), ["1 classes"]),
    "half a file": (half, ["no array 'probabilities'"]),
    "empty": (lambda path: path.write_bytes(b""), ["no array 'probabilities'"]),
    "an array by itself": (lambda path: path.write_bytes(npy()), ["no array 'probabilities'"]),
}


def npy():
    buffer = BytesIO()
    np.save(buffer, probabilities())
    return buffer.getvalue()


@pytest.mark.parametrize("fault", PROBABILITY_FAULTS)
def test_damaged_probabilities_are_named(tmp_path, capsys, fault):
    describe(tmp_path, {"background": 0, "polyp": 1}, ".png")
    for folder in ("predicted", "labelsTr"):
        (tmp_path / folder).mkdir()
        Image.fromarray((heart()[0] > 0).astype(np.uint8)).save(tmp_path / folder / "a.png")
    file = tmp_path / "predicted" / "a.npz"
    np.savez(file, probabilities=probabilities())
    damage, words = PROBABILITY_FAULTS[fault]
    damage(file)
    outcome = evaluate(capsys, tmp_path, "--protocol", "polyp")
    assert_refused(outcome, "predicted/a.", *words)
    assert not (tmp_path / "predicted" / "evaluation").exists()


LABEL_FAULTS = {
    "a word": {"background": 0, "RV": "one"},
    "a fraction": {"background": 0, "RV": 1.5},
    "nothing": {"background": 0, "RV": None},
    "an empty region": {"background": 0, "RV": []},
    "negative": {"background": 0, "RV": -1},
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_labels_of_the_description_that_are_no_numbers(dataset, capsys, fault):
    describe(dataset, LABEL_FAULTS[fault])
    assert_refused(evaluate(capsys, dataset), "dataset.json")
