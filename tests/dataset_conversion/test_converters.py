"""Every converter on small files in exactly its release's layout, and on real data where they are present."""

import json
import shutil
import tarfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from nnunetv2_levit import cli
from nnunetv2_levit.dataset_conversion.cases import RawCase, ReadOptions
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.converters import CONVERTERS
from nnunetv2_levit.dataset_conversion.nifti import write_array
from nnunetv2_levit.dataset_conversion.readers import read_volumes
from nnunetv2_levit.dataset_conversion.synapse import BTCV_ORGANS, PAPER_ORGANS, TEST_CASES
from nnunetv2_levit.errors import UserError
from tests.conftest import SHARED, nnunet_environment, reference_or_skip
from tests.support.nnunet_programs import plan_and_preprocess

AFFINE = np.array([[-0.8, 0, 0, 10], [0, 0.8, 0, -5], [0, 0, 3, 2], [0, 0, 0, 1]], dtype=float)


def write_nifti(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def write_volume_pair(
    image, label, *, seed, labels, dtype=np.int16, label_dtype=np.uint8, channels=None, shape=(12, 10, 4)
):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 500, (*shape, *([channels] if channels else []))).astype(dtype)
    write_nifti(image, values)
    write_nifti(label, rng.integers(0, labels + 1, shape).astype(label_dtype))


def write_picture(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def write_picture_pair(image, mask, *, seed, colour=True, mask_options=None):
    rng = np.random.default_rng(seed)
    size = (16 + seed % 3, 20)
    write_picture(image, rng.integers(0, 255, (*size, 3) if colour else size, dtype=np.uint8))
    values = np.zeros(size, np.uint8)
    values[4:12, 5 : 10 + seed % 4] = 255
    write_picture(mask, values, **(mask_options or {}))


def write_acdc(root):
    write_phantom(root, patients=5, size=24, slices=2)


def write_synapse(root):
    for number in (1, 5, 6, 8, 10):
        pair = root / "img" / f"img{number:04d}.nii.gz", root / "label" / f"label{number:04d}.nii.gz"
        write_volume_pair(*pair, seed=number, labels=13, label_dtype=np.uint16)
    (root / "averaged-training-images").mkdir()


def write_isbi2012(root):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)) for _ in range(10)]
    masks = [Image.fromarray((rng.random((16, 16)) > 0.5).astype(np.uint8) * 255) for _ in range(10)]
    frames[0].save(root / "train-volume.tif", save_all=True, append_images=frames[1:])
    masks[0].save(root / "train-labels.tif", save_all=True, append_images=masks[1:])


def write_isic(root):
    for i in range(5):
        name = f"ISIC_{i:07d}"
        images, masks = root / "ISIC-2017_Training_Data", root / "ISIC-2017_Training_Part1_GroundTruth"
        write_picture_pair(images / f"{name}.jpg", masks / f"{name}_segmentation.png", seed=i)
        write_picture(images / f"{name}_superpixels.png", np.zeros((4, 4, 3), np.uint8))
    for i in (2, 3):
        name = f"IMD{i:03d}"
        folder = root / "PH2 Dataset images" / name
        image, mask = folder / f"{name}_Dermoscopic_Image", folder / f"{name}_lesion"
        write_picture_pair(image / f"{name}.bmp", mask / f"{name}_lesion.bmp", seed=50 + i)


def write_polyp(root):
    for i in range(5):
        pair = root / "TrainDataset" / "image" / f"{i}.png", root / "TrainDataset" / "mask" / f"{i}.png"
        write_picture_pair(*pair, seed=i)
    for k, name in enumerate(("Kvasir", "CVC-300")):
        folder = root / "TestDataset" / name
        write_picture_pair(folder / "images" / "1.png", folder / "masks" / "1.png", seed=20 + k)


def write_msd(root):
    for i in range(5):
        name = f"prostate_{i:02d}.nii.gz"
        pair = root / "imagesTr" / name, root / "labelsTr" / name
        write_volume_pair(*pair, seed=i, labels=2, dtype=np.float32, label_dtype=np.float32, channels=2)
        (root / "imagesTr" / f"._{name}").write_bytes(b"macOS")
    write_nifti(root / "imagesTs" / "prostate_09.nii.gz", np.ones((4, 4, 3, 2), np.float32))
    description = {
        "name": "PROSTATE",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
    }
    (root / "dataset.json").write_text(json.dumps(description))


def write_ibsr18(root):
    for i in range(1, 6):
        name = f"IBSR_{i:02d}"
        rng = np.random.default_rng(i)
        write_nifti(root / name / f"{name}.nii.gz", rng.integers(0, 255, (8, 6, 8, 1)).astype(np.int16))
        write_nifti(root / name / f"{name}_seg.nii.gz", rng.integers(0, 4, (8, 6, 8, 1)).astype(np.int16))
    write_nifti(root / "IBSR_11" / "IBSR_11.nii.gz", np.ones((8, 6, 8, 1), np.int16))


def write_emidec(root):
    for i, kind in enumerate("NPNPPP"):
        name = f"Case_{kind}{i:03d}"
        pair = root / name / "Images" / f"{name}.nii.gz", root / name / "Contours" / f"{name}.nii.gz"
        write_volume_pair(*pair, seed=i, labels=4, dtype=np.float64, label_dtype=np.int16)
    (root / "Case P001.txt").write_text("clinical data")


# writer, training cases, test cases, channels, foreground labels
LAYOUTS = {
    "acdc": (write_acdc, 10, 0, 1, 3),
    "synapse": (write_synapse, 5, 0, 1, 8),
    "isbi2012": (write_isbi2012, 10, 0, 1, 1),
    "isic": (write_isic, 5, 2, 3, 1),
    "polyp": (write_polyp, 5, 2, 3, 1),
    "msd": (write_msd, 5, 1, 2, 2),
    "ibsr18": (write_ibsr18, 5, 0, 1, 3),
    "emidec": (write_emidec, 6, 0, 1, 4),
}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return tmp_path / "raw"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def convert(name, source, *flags):
    cli.main(["convert", name, "-i", str(source), "-d", "9", *map(str, flags)])


def refusal(capsys, *arguments):
    """The one sentence with which a conversion ends."""
    with pytest.raises(SystemExit) as stop:
        convert(*arguments)
    assert stop.value.code == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return sentence


def dataset(raw):
    (folder,) = raw.iterdir()
    return (
        folder,
        json.loads((folder / "dataset.json").read_text()),
        json.loads((folder / "conversion.json").read_text()),
    )


def read(path):
    return np.asarray(Image.open(path)) if path.suffix == ".png" else np.asanyarray(nibabel.load(path).dataobj)


def test_every_converter_has_a_layout_here():
    assert set(LAYOUTS) == set(CONVERTERS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_releases_layout_is_converted(name, source, raw):
    write, training, test, channels, labels = LAYOUTS[name]
    write(source)
    convert(name, source)
    folder, description, summary = dataset(raw)
    assert len(list((folder / "labelsTr").iterdir())) == description["numTraining"] == training
    assert len(description["channel_names"]) == channels
    assert len(description["labels"]) == labels + 1
    assert len(summary["cases"]) == training + test
    assert len(list((folder / "imagesTs").iterdir()) if test else []) == test * (2 if name == "msd" else 1)
    assert len(json.loads((folder / "splits_final.json").read_text())) == 5
    found = set()
    for path in (folder / "labelsTr").iterdir():
        found |= set(np.unique(read(path)))
    assert found <= set(description["labels"].values())
    assert len(found) > 1


@pytest.mark.parametrize("kind", ["<i2", ">i2", ">f4"])
def test_arrays_of_any_byte_order_are_written_as_they_are(kind, tmp_path):
    values = np.arange(24, dtype=kind).reshape(2, 3, 4)
    write_array(values, np.eye(4), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "a.nii.gz").get_fdata(), values)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_dry_run_writes_nothing_and_names_every_case(name, source, raw, capsys):
    write, training, test, *_ = LAYOUTS[name]
    write(source)
    convert(name, source, "--dry-run")
    text = capsys.readouterr().out
    assert f"{training} training cases" in text
    assert f"{test} test cases" in text
    assert text.count(str(source)) >= training + test
    assert not raw.exists()


def test_the_list_shows_every_layout(capsys):
    cli.main(["convert", "--list"])
    text = capsys.readouterr().out
    for converter in CONVERTERS.values():
        assert f"{converter.name}: " in text
        assert converter.layout in text


@pytest.mark.parametrize("name", LAYOUTS)
def test_wrong_sources_are_refused(name, source, raw, tmp_path, capsys):
    assert str(source) in refusal(capsys, name, source)  # an empty folder
    assert "there is no folder" in refusal(capsys, name, tmp_path / "absent")
    archive = tmp_path / "release.tar"
    with tarfile.open(archive, "w"):
        pass
    assert "is an archive: unpack it" in refusal(capsys, name, archive)
    assert "choose one of crossval" in refusal(capsys, name, source, "--splits", "unknown")
    assert not raw.exists()


def test_synapses_organs_are_those_of_the_papers(source, raw):
    write_synapse(source)
    convert("synapse", source)
    folder, description, _ = dataset(raw)
    assert description["labels"] == {"background": 0, **{n: i for i, n in enumerate(PAPER_ORGANS, start=1)}}
    original = read(source / "label" / "label0005.nii.gz")
    converted = read(folder / "labelsTr" / "case0005.nii.gz")
    for value, organ in enumerate(BTCV_ORGANS, start=1):
        expected = description["labels"].get(organ, 0)
        assert set(np.unique(converted[original == value])) == {expected}
    assert set(np.unique(converted[original == 0])) == {0}


def test_synapse_with_13_organs_keeps_every_voxel(source, raw):
    write_synapse(source)
    convert("synapse", source, "--organs", 13)
    folder, description, _ = dataset(raw)
    assert len(description["labels"]) == 14
    np.testing.assert_array_equal(
        read(folder / "labelsTr" / "case0005.nii.gz"), read(source / "label" / "label0005.nii.gz")
    )


@pytest.mark.parametrize("flag", ["--splits", "--test-split"])
def test_synapses_test_cases_are_transunets(source, raw, flag):
    write_synapse(source)
    convert("synapse", source, flag, "transunet")
    folder, _, summary = dataset(raw)
    tested = {f"case{n:04d}" for n in (1, 8)}
    assert len(TEST_CASES) == 12
    if flag == "--splits":
        assert "list" in summary["decisions"]["splits"]["source"]
        (fold,) = json.loads((folder / "splits_final.json").read_text())
        assert set(fold["val"]) == tested
        assert not tested & set(fold["train"])
    else:
        assert {path.name.split(".")[0] for path in (folder / "labelsTs").iterdir()} == tested
        assert len(list((folder / "labelsTr").iterdir())) == 3


def test_impossible_test_splits_are_refused(source, raw, capsys):
    write_synapse(source)
    assert "known are transunet" in refusal(capsys, "synapse", source, "--test-split", "other")
    assert "give one of them" in refusal(
        capsys, "synapse", source, "--test-split", "transunet", "--splits", "transunet"
    )


def write_transunet(root):
    rng = np.random.default_rng(0)
    volumes = {}
    for number, depth in ((5, 4), (6, 3), (1, 5)):
        volumes[number] = (
            rng.random((depth, 8, 10)).astype(np.float32),
            rng.integers(0, 9, (depth, 8, 10)).astype(np.float32),
        )
    (root / "train_npz").mkdir()
    (root / "test_vol_h5").mkdir()
    for number in (5, 6):
        for i, (image, label) in enumerate(zip(*volumes[number], strict=True)):
            np.savez(root / "train_npz" / f"case{number:04d}_slice{i:03d}.npz", image=image, label=label)
    with h5py.File(root / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        file["image"], file["label"] = volumes[1]
    return volumes


def test_transunets_preprocessed_form(source, raw, capsys):
    volumes = write_transunet(source)
    convert("synapse", source, "--test-split", "transunet", "--spacing", 0.8, 0.8, 3)
    folder, description, _ = dataset(raw)
    assert description["channel_names"] == {"0": "rescaled CT"}
    for number, side in ((5, "Tr"), (6, "Tr"), (1, "Ts")):
        image, label = volumes[number]
        path = folder / f"images{side}" / f"case{number:04d}_0000.nii.gz"
        np.testing.assert_array_equal(read(path), image.transpose(2, 1, 0))
        np.testing.assert_array_equal(
            read(folder / f"labels{side}" / f"case{number:04d}.nii.gz"), label.transpose(2, 1, 0)
        )
        assert nibabel.load(path).header.get_zooms() == pytest.approx((0.8, 0.8, 3))
    capsys.readouterr()
    convert("synapse", source, "--overwrite")
    assert "lost their spacing" in capsys.readouterr().out


def test_a_missing_slice_and_a_broken_array_are_named(source, raw, capsys):
    write_transunet(source)
    broken = source / "train_npz" / "case0005_slice001.npz"
    broken.write_bytes(broken.read_bytes()[:60])
    assert "case0005_slice001.npz is truncated" in refusal(capsys, "synapse", source)
    broken.unlink()
    assert "slice 1 of case0005 is missing" in refusal(capsys, "synapse", source)


def test_pictures_keep_every_pixel(source, raw):
    write_isic(source)
    convert("isic", source)
    folder, description, _ = dataset(raw)
    assert description["file_ending"] == ".png"
    for path in (source / "ISIC-2017_Training_Data").glob("*.jpg"):
        decoded = np.asarray(Image.open(path))
        np.testing.assert_array_equal(read(folder / "imagesTr" / f"{path.stem}_0000.png"), decoded)
        mask = Image.open(source / "ISIC-2017_Training_Part1_GroundTruth" / f"{path.stem}_segmentation.png")
        np.testing.assert_array_equal(read(folder / "labelsTr" / f"{path.stem}.png"), np.asarray(mask) // 255)


def test_lossy_masks_are_cut_and_grey_ones_refused(source, raw, capsys):
    for i in range(5):
        write_picture_pair(source / "images" / f"{i}.jpg", source / "masks" / f"{i}.jpg", seed=i)
    convert("polyp", source)
    folder, *_ = dataset(raw)
    expected = np.zeros((16, 20), np.uint8)
    expected[4:12, 5:10] = 1
    np.testing.assert_array_equal(read(folder / "labelsTr" / "0.png"), expected)
    write_picture(source / "masks" / "3.jpg", np.full((16, 20), 128, np.uint8))
    assert "3.jpg is no mask of 0 and 255" in refusal(capsys, "polyp", source, "--overwrite")


def test_msd_without_json_takes_the_published_task(source, raw, capsys):
    write_msd(source)
    (source / "dataset.json").unlink()
    convert("msd", source)
    folder, description, _ = dataset(raw)
    assert folder.name == "Dataset009_Prostate"
    assert description["labels"] == {"background": 0, "PZ": 1, "TZ": 2}
    assert "no dataset.json" in capsys.readouterr().out
    values = read(source / "imagesTr" / "prostate_00.nii.gz")
    for channel in (0, 1):
        np.testing.assert_array_equal(
            read(folder / "imagesTr" / f"prostate_00_{channel:04d}.nii.gz"), values[..., channel]
        )
    for path in [*source.glob("*Tr/prostate*"), *source.glob("*Ts/*")]:
        path.rename(path.with_name(path.name.replace("prostate", "other")))
    assert "of no known task" in refusal(capsys, "msd", source, "--overwrite")
    (source / "dataset.json").write_text("{}")
    assert "no dataset.json of the Decathlon" in refusal(capsys, "msd", source, "--overwrite")


def shift_label(source):
    path = source / "Case_P001" / "Contours" / "Case_P001.nii.gz"
    affine = AFFINE.copy()
    affine[0, 3] += 4
    write_nifti(path, read(path), affine)


def test_a_shifted_origin_is_refused_and_can_be_mended(source, raw, capsys):
    write_emidec(source)
    shift_label(source)
    sentence = refusal(capsys, "emidec", source)
    assert "lies elsewhere in space" in sentence
    assert "--fix-geometry" in sentence
    convert("emidec", source, "--fix-geometry")
    folder, _, summary = dataset(raw)
    assert "took the header" in summary["cases"]["Case_P001"]["remarks"][0]
    assert "took the geometry" in capsys.readouterr().out
    image = nibabel.load(folder / "imagesTr" / "Case_P001_0000.nii.gz")
    np.testing.assert_allclose(nibabel.load(folder / "labelsTr" / "Case_P001.nii.gz").affine, image.affine)


MISSING = {
    "synapse": ("label/label0005.nii.gz", "label0005.nii.gz is missing"),
    "isic": (
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000002_segmentation.png",
        "ISIC_0000002_segmentation is missing",
    ),
    "polyp": ("TrainDataset/mask/3.png", "3.png has no mask"),
    "msd": ("labelsTr/prostate_02.nii.gz", "prostate_02.nii.gz is missing"),
    "ibsr18": ("IBSR_02/IBSR_02.nii.gz", "holds no image IBSR_02.nii.gz"),
    "emidec": ("Case_P001/Contours/Case_P001.nii.gz", "lacks Contours/Case_P001.nii.gz"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_pair_is_named(name, source, raw, capsys):
    LAYOUTS[name][0](source)
    missing, words = MISSING[name]
    (source / missing).unlink()
    assert words in refusal(capsys, name, source)
    assert not raw.exists()


TRUNCATED = {
    "synapse": "img/img0005.nii.gz",
    "isbi2012": "train-volume.tif",
    "isic": "ISIC-2017_Training_Data/ISIC_0000002.jpg",
    "polyp": "TrainDataset/image/3.png",
    "msd": "imagesTr/prostate_02.nii.gz",
    "ibsr18": "IBSR_02/IBSR_02_seg.nii.gz",
    "emidec": "Case_P001/Images/Case_P001.nii.gz",
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_named_and_nothing_is_left(name, source, raw, capsys):
    LAYOUTS[name][0](source)
    path = source / TRUNCATED[name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert path.name in refusal(capsys, name, source)
    assert not raw.exists() or list(raw.iterdir()) == []


def test_copies_are_refused_or_kept_in_one_fold(source, raw, capsys):
    write_polyp(source)
    for part in ("image", "mask"):
        shutil.copy(source / "TrainDataset" / part / "1.png", source / "TrainDataset" / part / "copy.png")
    assert "is a copy of" in refusal(capsys, "polyp", source)
    convert("polyp", source, "--keep-copies")
    for fold in json.loads((dataset(raw)[0] / "splits_final.json").read_text()):
        assert ("1" in fold["val"]) == ("copy" in fold["val"])


def test_the_plural_folders_of_other_copies_of_pranets_data(source, raw):
    write_polyp(source)
    for part in ("image", "mask"):
        (source / "TrainDataset" / part).rename(source / "TrainDataset" / f"{part}s")
    (source / "TestDataset" / "TestDataset").mkdir()
    convert("polyp", source)
    _, description, summary = dataset(raw)
    assert description["numTraining"] == 5
    assert summary["decisions"]["left_out"] == {
        str(source / "TestDataset" / "TestDataset"): "none of PraNet's test sets"
    }


def test_one_year_of_isic_at_a_time(source, raw, capsys):
    write_isic(source)
    pair = source / "ISBI2016_ISIC_Part1_Test_Data", source / "ISBI2016_ISIC_Part1_Test_GroundTruth"
    write_picture_pair(pair[0] / "ISIC_9.jpg", pair[1] / "ISIC_9_Segmentation.png", seed=9)
    convert("isic", source)
    _, _, summary = dataset(raw)
    assert "ISIC_9" not in summary["cases"]
    assert summary["decisions"]["left_out"][str(pair[0])] == "test images of another year"
    assert any("take each picture for a patient" in note for note in summary["notes"])
    assert summary["decisions"]["splits"]["source"].startswith("ours: grouped by picture")
    for part in ("Training_Data", "Training_GroundTruth"):
        (source / f"ISBI2016_ISIC_Part1_{part}").mkdir()
    assert "holds several training sets" in refusal(capsys, "isic", source)


def test_a_sheared_volume_is_refused(source, raw, capsys):
    """A qform can't hold it, so that readers would differ."""
    write_ibsr18(source)
    path = source / "IBSR_01" / "IBSR_01.nii.gz"
    image = nibabel.load(path)
    affine = AFFINE.copy()
    affine[1, 2] = 0.9
    affine[:3, 2] *= 3 / np.linalg.norm(affine[:3, 2])  # pixdim stays
    image.header.set_qform(AFFINE, code=0)
    image.header.set_sform(affine, code=1)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    assert "is sheared" in refusal(capsys, "ibsr18", source)


def test_a_label_of_a_slightly_larger_voxel_is_refused(tmp_path):
    """By less than 0.01 mm, which is nothing at the origin and a voxel at the other end."""
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    write_nifti(image, np.zeros((60, 8, 4), np.int16), np.diag([0.5, 0.5, 2, 1]))
    write_nifti(label, np.zeros((60, 8, 4), np.uint8), np.diag([0.509, 0.5, 2, 1]))
    with pytest.raises(UserError, match="has spacing"):
        read_volumes(RawCase("a", (image,), label, patient="a"), ReadOptions(), frozenset({0}))


REAL = {"hippocampus": ("msd", 156), "ibsr18": ("ibsr18", 10), "isbi2012": ("isbi2012", 24), "isic_like": ("isic", 5)}


@pytest.mark.slow
@pytest.mark.parametrize("folder", REAL)
def test_real_data_pass_nnunets_integrity_check_and_planning(folder, tmp_path, monkeypatch):
    source = reference_or_skip(SHARED / "data" / folder, f"the real data of {folder}")
    name, count = REAL[folder]
    environment = nnunet_environment(tmp_path)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    convert(name, source)
    target, description, summary = dataset(tmp_path / "raw")
    assert description["numTraining"] == count
    for case, facts in summary["cases"].items():
        values, voxels = np.unique(read(Path(facts["label"])), return_counts=True)
        picture = description["file_ending"] == ".png"  # masks of 0 and 255 become 0 and 1
        names = [str(i if picture else int(v)) for i, v in enumerate(values)]
        counted = dict(zip(names, voxels.tolist(), strict=True))
        assert facts["voxels"] == counted, case
    said = plan_and_preprocess(9, "--no_pp", environment=environment)
    assert "mismatch" not in said.lower()
    assert (tmp_path / "preprocessed" / target.name / "nnUNetPlans.json").is_file()
