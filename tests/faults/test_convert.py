"""What ``convert`` refuses: sources, requests and targets that would end in a wrong dataset, in a sentence each."""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from nnunetv2_levit.dataset_conversion.acdc import ACDC
from nnunetv2_levit.dataset_conversion.cases import ReadOptions
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, make_splits
from nnunetv2_levit.dataset_conversion.raw_dataset import write_raw_dataset
from nnunetv2_levit.errors import UserError
from tests.dataset_conversion.test_converters import (
    write_emidec,
    write_ibsr18,
    write_isbi2012,
    write_isic,
    write_msd,
    write_polyp,
    write_synapse,
    write_transunet,
)
from tests.support.faults import assert_refused, run, snapshot


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return tmp_path / "raw"


def convert(capsys, name, source, *flags):
    return run(capsys, "convert", name, "-i", source, "-d", "9", *flags)


def assert_nothing_written(raw: Path) -> None:
    assert not raw.exists() or list(raw.iterdir()) == []


def change_json(**entries) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        path = source / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return damage


def remove(part: str) -> Callable[[Path], None]:
    return lambda source: (source / part).unlink()


def replace_by_folder(part: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / part).unlink()
        (source / part).mkdir()

    return damage


def replace_by_file(part: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        shutil.rmtree(source / part)
        (source / part).write_text("a file")

    return damage


def replace_by_broken_link(part: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / part).unlink()
        (source / part).symlink_to(source / "gone")

    return damage


def copy(part: str, name: str) -> Callable[[Path], None]:
    return lambda source: shutil.copy(source / part, (source / part).with_name(name))


def write_bytes(part: str, content: bytes) -> Callable[[Path], None]:
    return lambda source: (source / part).write_bytes(content)


def save_picture(part: str, mode: str, *, value=0, size=(20, 17), **options) -> Callable[[Path], None]:
    """A picture of one value in a mode of Pillow's; ``write_polyp``'s picture 1 has 17 rows and 20 columns."""
    return lambda source: Image.new(mode, size, value).save(source / part, **options)


def save_array(part: str, change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    """A picture of an array, drawn into one that ``write_polyp``'s masks have the shape of."""

    def damage(source: Path) -> None:
        values = np.array(Image.open(source / part))
        Image.fromarray(change(values)).save(source / part)

    return damage


def one_grey(values: np.ndarray) -> np.ndarray:
    """A mask with a single pixel, of 128."""
    values = np.zeros_like(values)
    values[3, 4] = 128
    return values


def save_animation(part: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        frames = [Image.new("L", (20, 17), value) for value in (0, 255)]
        frames[0].save(source / part, save_all=True, append_images=frames[1:])

    return damage


def save_stack(part: str, frames: int) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        pages = [Image.new("L", (16, 16), 255 * (i % 2)) for i in range(frames)]
        pages[0].save(source / part, save_all=True, append_images=pages[1:])

    return damage


def bomb(source: Path) -> None:
    """A PNG of a few bytes whose header claims 60000 x 60000 pixels."""
    path = source / IMAGE
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def save_deep_colours(source: Path) -> None:
    """A PNG of 16 bits a channel in RGB, which Pillow can read and can't write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    width, height, depth, rgb = 20, 17, 16, 2
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, rgb, 0, 0, 0])
    pixels = zlib.compress(bytes(height * (1 + width * 6)))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    (source / IMAGE).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


SLICE = "train_npz/case0005_slice001.npz"
VOLUME = "test_vol_h5/case0001.npy.h5"


def save_slice(**arrays) -> Callable[[Path], None]:
    """A slice of another content; ``write_transunet``'s have 8 rows and 10 columns."""
    usual = {"image": np.zeros((8, 10), np.float32), "label": np.zeros((8, 10), np.float32)}
    kept = {name: array for name, array in {**usual, **arrays}.items() if array is not None}
    return lambda source: np.savez(source / SLICE, **kept)


def save_volume(write: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        with h5py.File(source / VOLUME, "w") as file:
            file["label"] = np.zeros((5, 8, 10), np.uint8)
            write(file)

    return damage


NAN_SLICE = np.full((8, 10), np.nan, np.float32)
HUGE_SLICE = np.full((8, 10), 1e300)
TEXT = np.full((8, 10), "a")
OBJECTS = np.full((8, 10), None, dtype=object)
IMAGE, MASK = "TrainDataset/image/1.png", "TrainDataset/mask/1.png"
MSD_IMAGE, MSD_LABEL = "imagesTr/prostate_01.nii.gz", "labelsTr/prostate_01.nii.gz"


def as_labels(*names: object) -> dict[str, object]:
    return {str(value): name for value, name in enumerate(names)}


# converter, its source, the damage, words of the sentence
BAD_SOURCES = {
    # the Decathlon's dataset.json, values that don't fit together
    "no channels": ("msd", write_msd, change_json(modality={}), ("dataset.json", "modality")),
    "too few channels": (
        *("msd", write_msd, change_json(modality={"0": "T2"})),
        ("prostate_0", "2 channels where 1 are declared (T2)", "dataset.json"),
    ),
    "too many channels": (
        *("msd", write_msd, change_json(modality={"0": "T2", "1": "ADC", "2": "DWI"})),
        ("prostate_0", "2 channels where 3 are declared"),
    ),
    "channel numbers with a gap": (
        *("msd", write_msd, change_json(modality={"0": "T2", "2": "ADC"})),
        ("dataset.json", "0, 2", "number the channels 0, 1"),
    ),
    "channel without name": (
        "msd",
        write_msd,
        change_json(modality={"0": "T2", "1": ""}),
        ("dataset.json", "modality"),
    ),
    "label -1": (
        *("msd", write_msd, change_json(labels={"-1": "void", "0": "background", "1": "PZ", "2": "TZ"})),
        ("dataset.json", "-1"),
    ),
    "label no number": (
        *("msd", write_msd, change_json(labels={"background": "0"})),
        ("dataset.json", "background"),
    ),
    "label 1.5": ("msd", write_msd, change_json(labels={"0": "background", "1.5": "PZ"}), ("dataset.json", "1.5")),
    "label of very many digits": ("msd", write_msd, change_json(labels={"9" * 5000: "PZ"}), ("dataset.json",)),
    "two values of one label": (
        *("msd", write_msd, change_json(labels=as_labels("background", "PZ", "PZ"))),
        ("dataset.json", "labels"),
    ),
    "one value twice": (
        *("msd", write_msd, change_json(labels={"0": "background", "1": "PZ", "01": "TZ"})),
        ("dataset.json", "labels"),
    ),
    "label name a list": (
        "msd",
        write_msd,
        change_json(labels=as_labels("background", ["PZ"])),
        ("dataset.json", "PZ"),
    ),
    "no background": ("msd", write_msd, change_json(labels={"1": "PZ", "2": "TZ"}), ("dataset.json",)),
    "background of another name": (
        *("msd", write_msd, change_json(labels=as_labels("Background", "PZ", "TZ"))),
        ("'background'",),
    ),
    "background alone": ("msd", write_msd, change_json(labels=as_labels("background")), ("dataset.json",)),
    "labels with a gap": (
        *("msd", write_msd, change_json(labels={"0": "background", "2": "TZ"})),
        ("dataset.json", "0, 2"),
    ),
    "label not declared": (
        *("msd", write_msd, change_json(labels=as_labels("background", "PZ"))),
        ("labelsTr/prostate_0", "contains the label 2"),
    ),
    "more than 256 labels": (
        *("msd", write_msd, change_json(labels=as_labels("background", *(f"l{i}" for i in range(300))))),
        ("255 at most",),
    ),
    "label name null": ("msd", write_msd, change_json(labels=as_labels("background", None)), ("dataset.json",)),
    "label name no text": ("msd", write_msd, change_json(labels=as_labels("background", "\ud800")), ("dataset.json",)),
    # files and folders in each other's place
    "image a folder": ("msd", write_msd, replace_by_folder(MSD_IMAGE), (MSD_IMAGE, "is a folder")),
    "label a folder": ("msd", write_msd, replace_by_folder(MSD_LABEL), (MSD_LABEL, "is a folder")),
    "image a broken link": ("msd", write_msd, replace_by_broken_link(MSD_IMAGE), (MSD_IMAGE, "a broken link", "gone")),
    "label a broken link": ("msd", write_msd, replace_by_broken_link(MSD_LABEL), (MSD_LABEL, "a broken link")),
    "imagesTr a file": ("msd", write_msd, replace_by_file("imagesTr"), ("lacks imagesTr or labelsTr",)),
    "image and mask folders files": (
        *("polyp", write_polyp, replace_by_file("TrainDataset/mask")),
        ("TrainDataset/mask is a file where a folder is expected",),
    ),
    "image folder missing": (
        *("polyp", write_polyp, lambda s: shutil.rmtree(s / "TrainDataset" / "image")),
        ("TrainDataset/image is missing",),
    ),
    "picture a folder": ("polyp", write_polyp, replace_by_folder(IMAGE), (IMAGE, "is a folder")),
    "picture a broken link": ("polyp", write_polyp, replace_by_broken_link(MASK), (MASK, "a broken link")),
    "IBSR label a folder": (
        *("ibsr18", write_ibsr18, replace_by_folder("IBSR_02/IBSR_02_seg.nii.gz")),
        ("IBSR_02_seg.nii.gz", "is a folder"),
    ),
    "EMIDEC label a broken link": (
        *("emidec", write_emidec, replace_by_broken_link("Case_P001/Contours/Case_P001.nii.gz")),
        ("Contours/Case_P001.nii.gz", "a broken link"),
    ),
    "Synapse label a broken link": (
        *("synapse", write_synapse, replace_by_broken_link("label/label0005.nii.gz")),
        ("label0005.nii.gz", "a broken link"),
    ),
    # names
    "one image twice": ("polyp", write_polyp, copy(IMAGE, "1.jpg"), ("1.jpg", "1.png", "of the same name")),
    "one mask twice": ("polyp", write_polyp, copy(MASK, "1.jpg"), ("1.jpg", "1.png", "of the same name")),
    "one slice twice": (
        *("isbi2012", lambda s: [(s / p).mkdir() for p in ("image", "label")]),
        lambda s: [Image.new("L", (8, 8)).save(s / p / n) for p in ("image", "label") for n in ("1.png", "01.png")],
        ("slice01 occurs twice", "01.png", "image/1.png"),
    ),
    "image in two forms": (
        *("synapse", write_synapse, copy("img/img0005.nii.gz", "img0005.nii")),
        ("case0005 occurs twice", "img0005.nii "),
    ),
    "name with a line break": (
        "polyp",
        write_polyp,
        lambda s: [(s / p).rename((s / p).with_name("a\nb.png")) for p in (IMAGE, MASK)],
        ("a\\nb.png", "rename it"),
    ),
    "name not in UTF-8": (
        *("polyp", write_polyp, lambda s: (s / IMAGE).rename(s / "TrainDataset" / "image" / os.fsdecode(b"\xff.png"))),
        ("\\udcff.png", "not encoded in UTF-8"),
    ),
    "name too long": (
        "polyp",
        write_polyp,
        lambda s: [(s / p).rename((s / p).with_name("n" * 220 + ".png")) for p in (IMAGE, MASK)],
        ("200 bytes",),
    ),
    "slice named by a superscript": (
        *("isbi2012", lambda s: [(s / p).mkdir() for p in ("image", "label")]),
        lambda s: [Image.new("L", (8, 8)).save(s / p / "².png") for p in ("image", "label")],
        ("².png", "rename it"),
    ),
    # pictures
    "PNG bomb": ("polyp", write_polyp, bomb, (IMAGE, "too large for a picture")),
    "picture in CMYK": (
        *("polyp", write_polyp, save_picture(IMAGE, "CMYK", format="TIFF")),
        (IMAGE, "mode CMYK", "convert it"),
    ),
    "picture of 16 bits": ("polyp", write_polyp, save_picture(IMAGE, "I;16"), (IMAGE, "16 bits a channel")),
    "picture of 16 bits in colour": ("polyp", write_polyp, save_deep_colours, (IMAGE, "16 bits a channel")),
    "picture of floats": ("polyp", write_polyp, save_picture(IMAGE, "F", format="TIFF"), (IMAGE, "mode F")),
    "picture animated": ("polyp", write_polyp, save_animation(IMAGE), (IMAGE, "has 2 frames")),
    "picture transparent": ("polyp", write_polyp, save_picture(IMAGE, "RGBA"), (IMAGE, "transparent pixels")),
    "picture in grey": ("polyp", write_polyp, save_picture(IMAGE, "L"), (IMAGE, "1 channel where 3 are declared")),
    "picture no picture": ("polyp", write_polyp, write_bytes(IMAGE, b"x" * 99), (IMAGE, "no picture")),
    "picture empty": ("polyp", write_polyp, write_bytes(IMAGE, b""), (IMAGE, "no picture")),
    "mask of floats": ("polyp", write_polyp, save_picture(MASK, "F", format="TIFF"), (MASK, "mode F")),
    "mask transparent": ("polyp", write_polyp, save_picture(MASK, "LA"), (MASK, "transparent pixels")),
    "mask in colours": ("polyp", write_polyp, save_picture(MASK, "RGB", value=(255, 0, 0)), (MASK, "a colour picture")),
    "mask of a palette's colours": (
        *("polyp", write_polyp, lambda s: Image.new("RGB", (20, 17), (128, 0, 0)).convert("P").save(s / MASK)),
        (MASK, "a colour picture"),
    ),
    "mask of classes 0 to 2": (
        *("polyp", write_polyp, save_array(MASK, lambda values: values // 127)),
        (MASK, "its largest value is 2"),
    ),
    "mask of 0 and 128, few pixels": ("polyp", write_polyp, save_array(MASK, one_grey), (MASK, "largest value is 128")),
    "mask of another size": (
        "polyp",
        write_polyp,
        save_picture(MASK, "L", size=(17, 20)),
        (MASK, "has shape (20, 17)"),
    ),
    "labels of more frames": ("isbi2012", write_isbi2012, save_stack("train-labels.tif", 11), ("11 frames", "has 10")),
    "labels of fewer frames": ("isbi2012", write_isbi2012, save_stack("train-labels.tif", 9), ("9 frames", "has 10")),
    "labels of one frame": (
        *("isbi2012", write_isbi2012, save_picture("train-labels.tif", "L")),
        ("train-labels.tif has 1 frames",),
    ),
    "labels no TIFF": (
        *("isbi2012", write_isbi2012, write_bytes("train-labels.tif", b"II*\0" + bytes(range(60)))),
        ("train-labels.tif is truncated or no TIFF",),
    ),
    # TransUNet's arrays
    "slice of strings": ("synapse", write_transunet, save_slice(image=TEXT), (SLICE, "image of type <U1")),
    "slice label of strings": ("synapse", write_transunet, save_slice(label=TEXT), (SLICE, "label of type <U1")),
    "slice of objects": ("synapse", write_transunet, save_slice(image=OBJECTS), (SLICE, "holds no image and label")),
    "slice without label": ("synapse", write_transunet, save_slice(label=None), (SLICE, "holds no image and label")),
    "slice complex": (
        *("synapse", write_transunet, save_slice(image=np.zeros((8, 10), complex))),
        (SLICE, "image of type complex128"),
    ),
    "slice with NaN": ("synapse", write_transunet, save_slice(image=NAN_SLICE), (SLICE, "NaN")),
    "slice beyond float32": ("synapse", write_transunet, save_slice(image=HUGE_SLICE), (SLICE, "infinite")),
    "slice label with NaN": ("synapse", write_transunet, save_slice(label=NAN_SLICE), (SLICE, "NaN")),
    "slice label undeclared": (
        *("synapse", write_transunet, save_slice(label=np.full((8, 10), 9))),
        (SLICE, "contains the label 9"),
    ),
    "slice of one axis": (
        *("synapse", write_transunet, save_slice(image=np.zeros(80), label=np.zeros(80))),
        (SLICE, "shape (80,)"),
    ),
    "slice without pixels": (
        *("synapse", write_transunet, save_slice(image=np.zeros((0, 10)), label=np.zeros((0, 10)))),
        (SLICE, "shape (0, 10)"),
    ),
    "slice of another size": (
        *("synapse", write_transunet, save_slice(image=np.zeros((8, 9)), label=np.zeros((8, 9)))),
        (SLICE, "has shape (8, 9)"),
    ),
    "slice one array, no zip": (
        *("synapse", write_transunet, lambda s: np.save((s / SLICE).open("wb"), np.zeros((8, 10)))),
        (SLICE, "holds no image and label"),
    ),
    "slice empty": ("synapse", write_transunet, write_bytes(SLICE, b""), (SLICE, "truncated")),
    "volume a group": (
        *("synapse", write_transunet, save_volume(lambda file: file.create_group("image"))),
        (VOLUME, "a group image"),
    ),
    "volume of another shape": (
        *("synapse", write_transunet, save_volume(lambda file: file.create_dataset("image", data=np.zeros((5, 8, 9))))),
        (VOLUME, "they must be equal"),
    ),
    "volume of strings": (
        *("synapse", write_transunet, save_volume(lambda f: f.create_dataset("image", data=[b"a"], dtype="S3"))),
        (VOLUME, "image of type |S3"),
    ),
    "volume a number": (
        *("synapse", write_transunet, save_volume(lambda file: file.create_dataset("image", data=1.0))),
        (VOLUME, "image of shape ()"),
    ),
    "volume without image": (
        "synapse",
        write_transunet,
        save_volume(lambda file: None),
        (VOLUME, "no image and label"),
    ),
    "volume that claims terabytes": (
        *("synapse", write_transunet),
        save_volume(
            lambda file: file.create_dataset("image", shape=(10**4, 10**4, 10**4), dtype="f4", chunks=(1, 100, 100))
        ),
        (VOLUME, "16 GiB"),
    ),
    "volume truncated": (
        *("synapse", write_transunet, lambda s: (s / VOLUME).write_bytes((s / VOLUME).read_bytes()[:900])),
        (VOLUME, "truncated"),
    ),
    "case as slices and as volume": (
        *("synapse", write_transunet, copy(VOLUME, "case0005.npy.h5")),
        ("case0005 is in train_npz and as",),
    ),
}


@pytest.mark.parametrize("fault", BAD_SOURCES)
def test_a_bad_source_is_named_and_nothing_is_written(fault, source, raw, capsys):
    name, write, damage, words = BAD_SOURCES[fault]
    write(source)
    damage(source)
    before = snapshot(source)
    assert_refused(convert(capsys, name, source), *words)
    assert_nothing_written(raw)
    assert snapshot(source) == before


def write_few_slices(source: Path) -> None:
    write_isbi2012(source)
    for part in ("train-volume.tif", "train-labels.tif"):
        save_stack(part, 3)(source)


# converter, its source, flags, words of the sentence
BAD_CALLS = {
    **{
        f"spacing {values}": (
            *("synapse", write_transunet, ("--spacing", *values.split())),
            ("--spacing", "is not three numbers from 0.01 to 100 mm"),
        )
        for values in ("-1 1 1", "nan 1 1", "1 inf 1", "0 1 1", "1 1 1e30", "1e-30 1 1")
    },
    "spacing for files that have theirs": (
        *("synapse", write_synapse, ("--spacing", 1, 1, 1)),
        ("--spacing", "leave it out"),
    ),
    "spacing for another converter": (
        *("msd", write_msd, ("--spacing", 1, 1, 1)),
        ("--spacing means nothing to msd",),
    ),
    "organs for another converter": ("polyp", write_polyp, ("--organs", 13), ("--organs means nothing to polyp",)),
    "task for another converter": ("polyp", write_polyp, ("--task", "la"), ("--task means nothing to polyp",)),
    "task unknown": ("msd", write_msd, ("--task", "knee"), ("--task knee", "choose one of BRATS")),
    "task of two dashes": ("msd", write_msd, ("--task=--",), ("--task", "choose one of BRATS")),
    "organs 9": ("synapse", write_synapse, ("--organs", 9), ("--organs is 8",)),
    "no workers": ("msd", write_msd, ("-w", 0), ("--workers 0", "1 to 256")),
    "a million workers": ("msd", write_msd, ("-w", 10**6), ("--workers 1000000", "1 to 256")),
    "id 0": ("msd", write_msd, ("-d", 0), ("id 0", "1 to 999")),
    "id -3": ("msd", write_msd, ("-d", -3), ("id -3", "1 to 999")),
    "id 1000": ("msd", write_msd, ("-d", 1000), ("id 1000", "1 to 999")),
    "no case for validation": (
        "synapse",
        lambda source: (
            write_synapse(source),
            [path.unlink() for n in (1, 8) for path in source.glob(f"img/*{n:04d}*")],
        ),
        ("--splits", "transunet"),
        ("--splits transunet", "leaves no case for val"),
    ),
    "too few patients for shares": ("isbi2012", write_few_slices, ("--splits", "unet2022"), ("at least 10", "3 were")),
    "folder does not exist": ("msd", lambda source: source.rmdir(), (), ("there is no folder",)),
}


@pytest.mark.parametrize("fault", BAD_CALLS)
def test_a_bad_call_writes_nothing(fault, source, raw, monkeypatch, capsys):
    name, write, flags, words = BAD_CALLS[fault]
    write(source)
    monkeypatch.setattr("nnunetv2_levit.dataset_conversion.raw_dataset._write_case", lambda *_: pytest.fail("read"))
    assert_refused(convert(capsys, name, source, *flags), *words)
    assert_nothing_written(raw)


def test_a_call_without_converter_lists_them(source, capsys):
    assert_refused(run(capsys, "convert", "-i", source, "-d", 9), "needs the name of a converter", "acdc")
    assert_refused(convert(capsys, "ACDC", source), "no converter 'ACDC'", "acdc")
    assert_refused(run(capsys, "convert", "acdc"), "convert acdc needs -i", "-d")


def test_a_raw_folder_that_no_system_takes_is_named(source, tmp_path, monkeypatch, capsys):
    write_msd(source)
    monkeypatch.setenv("nnUNet_raw", "/" + "x" * 300)
    assert_refused(convert(capsys, "msd", source), "nnUNet_raw names /xxx", "choose another folder")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "circle"))
    assert_refused(convert(capsys, "msd", source), "nnUNet_raw names", "not a folder")


@pytest.mark.parametrize(
    ("label_map", "words"),
    [({0: 0, 256: 1}, "256"), ({0: 0, -1: 1}, "-1"), ({0: 0, 1: 4}, "mapped to 4"), ({0: 0, 1: 300}, "mapped to 300")],
)
def test_a_wrong_map_of_labels_is_refused(label_map, words, phantom, raw):
    plan = ACDC.plan(ConversionRequest(phantom, 9))
    with pytest.raises(UserError, match=words):
        write_raw_dataset(
            plan.description,
            plan.cases,
            dataset_id=9,
            make_splits=partial(make_splits, scheme="none", converter=ACDC),
            options=ReadOptions(label_map=label_map),
        )
    assert_nothing_written(raw)


# damage to the Info.cfg of patient 3, words of the note
NOTED = {
    "missing": (Path.unlink, "no Info.cfg"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00\x80ED: 1"), "an Info.cfg that can't be read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "an Info.cfg that can't be read"),
    "broken link": (lambda path: (path.unlink(), path.symlink_to("gone")), "no Info.cfg"),
    "empty": (lambda path: path.write_text(""), "no Group in their Info.cfg"),
    "unknown group": (
        lambda path: path.write_text(path.read_text().replace("MINF", "MNIF")),
        "a Group in their Info.cfg that is none of DCM, HCM, MINF, NOR, RV",
    ),
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom"), patients=5, size=24, slices=2)


@pytest.mark.parametrize("fault", NOTED)
def test_a_patient_without_group_is_noted(fault, phantom, source, raw, capsys):
    damage, words = NOTED[fault]
    shutil.copytree(phantom, source, dirs_exist_ok=True)
    info = source / "training" / "patient003" / "Info.cfg"
    damage(info)
    found = " ('MNIF')" if "none of" in words else ""
    note = f"1 of 5 training patients have {words}, such as {info}{found}: folds are stratified without their group"
    for flags in (("--dry-run",), ()):
        outcome = convert(capsys, "acdc", source, *flags)
        assert outcome.code == 0
        assert f"note: {note}" in outcome.out.splitlines()
    assert note in json.loads((raw / "Dataset009_ACDC" / "conversion.json").read_text())["notes"]


def test_a_whole_phantom_gives_no_note(phantom, raw, capsys):
    outcome = convert(capsys, "acdc", phantom)
    notes = [line for line in outcome.out.splitlines() if line.startswith("note: ")]
    assert notes == ["note: 10 training cases were found, 200 are published"]


BAD_INFO = {
    "entry twice": ("ED: 1\nED: 2\n", "line 2: ED is given twice"),
    "frame of very many digits": ("ED: " + "9" * 5000, "where a frame number is needed"),
    "frame a superscript": ("ED: ²", "where a frame number is needed"),
    "frame negative": ("ED: -1", "where a frame number is needed"),
}


@pytest.mark.parametrize("fault", BAD_INFO)
def test_a_wrong_info_is_refused(fault, phantom, source, raw, capsys):
    text, words = BAD_INFO[fault]
    shutil.copytree(phantom, source, dirs_exist_ok=True)
    (source / "training" / "patient003" / "Info.cfg").write_text(text)
    assert_refused(convert(capsys, "acdc", source), "patient003/Info.cfg", words)
    assert_nothing_written(raw)


def test_one_frame_in_two_forms_is_refused(phantom, source, raw, capsys):
    shutil.copytree(phantom, source, dirs_exist_ok=True)
    copy("training/patient003/patient003_frame01.nii.gz", "patient003_frame1.nii.gz")(source)
    assert_refused(convert(capsys, "acdc", source), "patient003_frame1.nii.gz", "are the same frame")


def test_labels_without_image_and_other_files_are_noted(source, raw, capsys):
    write_msd(source)
    copy(MSD_LABEL, "prostate_77.nii.gz")(source)
    outcome = convert(capsys, "msd", source)
    assert outcome.code == 0
    assert (
        f"note: left out, a label without image: 1, such as {source / 'labelsTr' / 'prostate_77.nii.gz'}" in outcome.out
    )


def test_one_patient_gives_no_folds_and_says_so(source, raw, capsys):
    write_phantom(source, patients=1, size=24, slices=2)
    assert "note: there is one training patient only, so no folds" in convert(capsys, "acdc", source).out
    assert not (raw / "Dataset009_ACDC" / "splits_final.json").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
def test_splits_that_cannot_be_read_are_noted_and_keep_a_good_conversion_good(
    content, source, raw, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    present = tmp_path / "preprocessed" / "Dataset009_Prostate" / "splits_final.json"
    present.parent.mkdir(parents=True)
    present.write_bytes(content)
    write_msd(source)
    outcome = convert(capsys, "msd", source)
    assert outcome.code == 0
    assert f"note: {present} holds other splits" in outcome.out


def test_hidden_files_beside_pictures_are_no_cases(source, raw, capsys):
    write_polyp(source)
    for part in (IMAGE, MASK):
        copy(part, "._1.png")(source)
    assert convert(capsys, "polyp", source).code == 0


def test_an_alpha_channel_that_hides_nothing_changes_no_pixel(source, raw, capsys):
    write_polyp(source)
    for part in (IMAGE, MASK):
        picture = Image.open(source / part)
        picture.putalpha(255)
        picture.save(source / part)
    assert convert(capsys, "polyp", source).code == 0
    folder = raw / "Dataset009_Polyp"
    image, mask = np.array(Image.open(source / IMAGE)), np.array(Image.open(source / MASK))
    np.testing.assert_array_equal(np.array(Image.open(folder / "imagesTr" / "1_0000.png")), image[..., :3])
    np.testing.assert_array_equal(np.array(Image.open(folder / "labelsTr" / "1.png")), mask[..., 0] // 255)


def refuse_permission(monkeypatch, method: str, name: str) -> None:
    """Let one method of `Path` fail for one name, as the system does for a user other than root."""
    original = getattr(Path, method)

    def failing(path, *args, **kwargs):
        if name in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, failing)


@pytest.mark.parametrize(
    ("name", "write", "method", "part"),
    [
        ("ibsr18", write_ibsr18, "iterdir", "source"),
        ("msd", write_msd, "iterdir", "imagesTr"),
        ("msd", write_msd, "is_dir", "labelsTr"),
        ("isic", write_isic, "iterdir", "ISIC-2017_Training_Data"),
    ],
)
def test_a_source_without_permission_is_named(name, write, method, part, source, raw, monkeypatch, capsys):
    write(source)
    refuse_permission(monkeypatch, method, part)
    assert_refused(convert(capsys, name, source), part, "can't be read (Permission denied)", "permissions")


def test_a_file_without_permission_is_named_before_any_is_read(source, raw, monkeypatch, capsys):
    write_msd(source)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "prostate_01.nii.gz" and access(path, mode))
    assert_refused(convert(capsys, "msd", source), "prostate_01.nii.gz can't be read")


def read_only(target: Path, monkeypatch) -> None:
    refuse_permission(monkeypatch, "mkdir", ".partial-")


def a_file(target: Path, monkeypatch) -> None:
    target.parent.mkdir()
    target.write_text("a file")


def a_broken_link(target: Path, monkeypatch) -> None:
    target.parent.mkdir()
    target.symlink_to("gone")


def a_link_to_itself(target: Path, monkeypatch) -> None:
    target.parent.mkdir()
    target.symlink_to(target)


def a_link_to_a_folder(target: Path, monkeypatch) -> None:
    (target.parent.parent / "elsewhere").mkdir()
    target.parent.mkdir()
    target.symlink_to(target.parent.parent / "elsewhere")


BAD_TARGETS = {
    "read-only": (read_only, ("can't be written (Permission denied)",)),
    "a file": (a_file, ("Dataset009_Prostate is a file", "remove it")),
    "a broken link": (a_broken_link, ("Dataset009_Prostate is a link", "remove it")),
    "a link to itself": (a_link_to_itself, ("Dataset009_Prostate is a link", "remove it")),
    "a link to a folder": (a_link_to_a_folder, ("Dataset009_Prostate is a link", "remove it")),
}


@pytest.mark.parametrize("fault", BAD_TARGETS)
def test_a_bad_target_is_named_before_any_image_is_read(fault, source, raw, monkeypatch, capsys):
    damage, words = BAD_TARGETS[fault]
    write_msd(source)
    damage(raw / "Dataset009_Prostate", monkeypatch)
    before = snapshot(raw)
    monkeypatch.setattr("nnunetv2_levit.dataset_conversion.raw_dataset._write_case", lambda *_: pytest.fail("read"))
    assert_refused(convert(capsys, "msd", source, "--overwrite"), *words)
    assert snapshot(raw) == before


@pytest.mark.parametrize("link", [False, True], ids=["", "link"])
def test_a_source_in_its_own_target_is_kept(link, source, raw, tmp_path, capsys):
    target = raw / "Dataset009_Prostate"
    target.mkdir(parents=True)
    write_msd(target)
    given = target
    if link:
        given = tmp_path / "link"
        given.symlink_to(target)
    before = snapshot(raw)
    assert_refused(convert(capsys, "msd", given, "--overwrite"), "would replace", "move it elsewhere")
    assert snapshot(raw) == before
