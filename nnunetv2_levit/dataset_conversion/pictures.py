"""2D datasets of pictures: ISBI-2012 (EM), ISIC with PH2 (dermoscopy), and the polyp sets (endoscopy)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, Converter, Plan
from nnunetv2_levit.dataset_conversion.readers import read_pictures
from nnunetv2_levit.dataset_conversion.source_files import entries
from nnunetv2_levit.errors import UserError

RGB = ("red", "green", "blue")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def _description(name: str, channels: tuple[str, ...], foreground: str, **rest: Any) -> DatasetDescription:
    return DatasetDescription(
        name=name, channel_names=channels, labels={"background": 0, foreground: 1}, file_ending=".png", **rest
    )


def _folder(source: Path, *candidates: str) -> Path | None:
    return next((source / name for name in candidates if (source / name).is_dir()), None)


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    """Pictures by their stem in lower case.

    Raises:
        UserError: two of one stem, of which one would be lost.
    """
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem.lower(), path)
        if other is not path:
            raise UserError(f"{other} and {path} are pictures of the same name: remove one of them")
    return by_stem


def pair_pictures(
    images: Path, masks: Path, *, mask_suffix: str = "", prefix: str = "", test: bool = False
) -> tuple[list[RawCase], dict[str, str]]:
    """Cases from a folder of pictures and one of masks with the same stem (plus ``mask_suffix``), and what is left out.

    Raises:
        UserError: a missing folder, a picture without mask, or two pictures of one name.
    """
    masks_by_stem = _by_stem([path for path in entries(masks) if path.suffix.lower() in PICTURE_ENDINGS])
    pictures: list[Path] = []
    left_out: dict[str, str] = {}
    for path in entries(images):
        if path.suffix.lower() not in PICTURE_ENDINGS or path.stem.endswith("_superpixels"):
            left_out[str(path)] = "no picture of a case"
        else:
            pictures.append(path)
    cases = []
    for stem, path in _by_stem(pictures).items():
        mask = masks_by_stem.pop(f"{stem}{mask_suffix}".lower(), None)
        if mask is None:
            raise UserError(f"{path} has no mask: {path.stem}{mask_suffix} is missing in {masks}")
        identifier = f"{prefix}{path.stem}".replace(" ", "_").replace("__", "_")
        cases.append(RawCase(identifier, (path,), mask, patient=identifier, test=test))
    left_out |= {str(path): "a mask without image" for path in masks_by_stem.values()}
    return cases, left_out


def _frame_count(path: Path) -> int:
    try:
        with Image.open(path) as stack:
            return getattr(stack, "n_frames", 1)
    except Exception as error:  # Pillow raises exceptions of many kinds at damaged files
        raise UserError(f"{path} is truncated or no TIFF ({error}): copy it anew from its source") from None


def _plan_isbi2012(request: ConversionRequest) -> Plan:
    source, cases = request.source, []
    left_out: dict[str, str] = {}
    description = _description(
        "ISBI2012",
        ("EM",),
        "cell",
        citation="Arganda-Carreras et al., Frontiers in Neuroanatomy 9:142, 2015, doi 10.3389/fnana.2015.00142",
        license="research use",
        reference="https://imagej.net/events/isbi-2012-segmentation-challenge",
        published_cases=30,
    )
    volume, labels = source / "train-volume.tif", source / "train-labels.tif"
    if volume.is_file() and labels.is_file():
        frames, label_frames = _frame_count(volume), _frame_count(labels)
        if frames != label_frames:
            raise UserError(
                f"{labels} has {label_frames} frames and {volume} has {frames}: copy both anew from their source"
            )
        cases = [RawCase(f"slice{i:02d}", (volume,), labels, patient=f"slice{i:02d}", part=i) for i in range(frames)]
    else:
        root = source / "train" if (source / "train").is_dir() else source
        images, masks = _folder(root, "image", "images"), _folder(root, "label", "labels")
        if images is None or masks is None:
            raise UserError(f"{source} holds neither train-volume.tif and train-labels.tif nor folders image and label")
        found, left_out = pair_pictures(images, masks)
        for case in found:
            if not re.fullmatch(r"[0-9]{1,6}", case.images[0].stem):
                raise UserError(f"{case.images[0]} is not named by the number of its slice: rename it, such as 7.png")
            name = f"slice{int(case.images[0].stem):02d}"
            cases.append(RawCase(name, case.images, case.label, patient=name))
    return Plan(description, sorted(cases, key=lambda case: case.identifier), read=read_pictures, left_out=left_out)


@dataclass(frozen=True)
class IsicYear:
    """Folders of images and masks of one year's challenge, for training and for testing."""

    training: tuple[str, str]
    testing: tuple[str, str] | None
    mask_suffix: str
    published: int | None
    """training images"""


ISIC_YEARS = (
    IsicYear(
        ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
        ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
        "_Segmentation",
        900,
    ),
    IsicYear(
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
        "_segmentation",
        2000,
    ),
    IsicYear(
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
        "_segmentation",
        2594,
    ),
    IsicYear(("images", "masks"), None, "", None),
)


def _ph2_cases(source: Path) -> list[RawCase]:
    """PH2 as test set: ``PH2 Dataset images/IMDNNN/IMDNNN_{Dermoscopic_Image,lesion}/…bmp`` (Mendonça et al. 2013)."""
    roots = [p for p in (source / "PH2 Dataset images", source / "PH2Dataset" / "PH2 Dataset images") if p.is_dir()]
    cases = []
    for folder in entries(roots[0]) if roots else ():
        if not re.fullmatch(r"IMD\d+", folder.name):
            continue
        image = folder / f"{folder.name}_Dermoscopic_Image" / f"{folder.name}.bmp"
        mask = folder / f"{folder.name}_lesion" / f"{folder.name}_lesion.bmp"
        for path in (image, mask):
            if not path.is_file():
                raise UserError(f"{folder} lacks {path.relative_to(folder)}: restore it from the release")
        cases.append(RawCase(f"PH2_{folder.name}", (image,), mask, patient=f"PH2_{folder.name}", test=True))
    return cases


def _plan_isic(request: ConversionRequest) -> Plan:
    source = request.source
    found = [year for year in ISIC_YEARS if all((source / name).is_dir() for name in year.training)]
    if not found:
        expected = "; ".join(" and ".join(year.training) for year in ISIC_YEARS)
        raise UserError(f"{source} holds none of these pairs of folders: {expected}")
    if len(found) > 1:  # the years share images, some with other masks
        names = " and ".join(year.training[0] for year in found)
        raise UserError(f"{source} holds several training sets, {names}: move each into a folder of its own")
    (year,) = found
    images, masks = (source / name for name in year.training)
    cases, left_out = pair_pictures(images, masks, mask_suffix=year.mask_suffix)
    if year.testing is not None and all((source / name).is_dir() for name in year.testing):
        images, masks = (source / name for name in year.testing)
        more, out = pair_pictures(images, masks, mask_suffix=year.mask_suffix, test=True)
        cases, left_out = cases + more, left_out | out
    for other in ISIC_YEARS:
        if other is not year and other.testing is not None and (source / other.testing[0]).is_dir():
            left_out[str(source / other.testing[0])] = "test images of another year"
    description = _description(
        "ISIC",
        RGB,
        "lesion",
        citation="Gutman et al., arXiv 1605.01397, 2016; Codella et al., arXiv 1710.05006, 2017, and 1902.03368, 2019",
        license="CC0 (2016, 2017), CC BY-NC 4.0 (2018)",
        reference="https://challenge.isic-archive.com/data",
        published_cases=year.published,
    )
    return Plan(description, cases + _ph2_cases(source), read=read_pictures, left_out=left_out)


POLYP_TESTS = ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir")
SINGLE_POLYP_SETS = (("images", "masks"), ("Original", "Ground Truth"), ("PNG/Original", "PNG/Ground Truth"))


def _polyp_pairs(folder: Path, *, prefix: str = "", test: bool = False) -> tuple[list[RawCase], dict[str, str]]:
    """Cases of a folder of PraNet's, whose copies call the folders image and mask or images and masks."""
    images = _folder(folder, "image", "images") or folder / "image"
    masks = _folder(folder, "mask", "masks") or folder / "mask"
    return pair_pictures(images, masks, prefix=prefix, test=test)


def _plan_polyp(request: ConversionRequest) -> Plan:
    source = request.source
    citation = (
        "Fan et al., PraNet, MICCAI 2020 (split); Jha et al. 2020 (Kvasir-SEG); Bernal et al. 2015 (CVC-ClinicDB)"
    )
    cases: list[RawCase] = []
    left_out: dict[str, str] = {}
    if (source / "TrainDataset").is_dir():
        cases, left_out = _polyp_pairs(source / "TrainDataset")
        tests = source / "TestDataset"
        for folder in entries(tests) if tests.exists() else ():
            if folder.name in POLYP_TESTS:
                more, out = _polyp_pairs(folder, prefix=f"{folder.name}_", test=True)
                cases, left_out = cases + more, left_out | out
            else:
                left_out[str(folder)] = "none of PraNet's test sets"
        published = 1450
    else:
        pair = next((p for p in SINGLE_POLYP_SETS if (source / p[0]).is_dir() and (source / p[1]).is_dir()), None)
        if pair is None:
            raise UserError(f"{source} holds neither TrainDataset nor images and masks, nor Original and Ground Truth")
        cases, left_out = pair_pictures(source / pair[0], source / pair[1])
        published = None
    description = _description(
        "Polyp",
        RGB,
        "polyp",
        citation=citation,
        license="research use",
        reference="https://github.com/DengPingFan/PraNet",
        published_cases=published,
    )
    return Plan(description, cases, read=read_pictures, left_out=left_out)


ISBI2012 = Converter(
    name="isbi2012",
    summary="EM of neuronal structures, 2D slices (label: cell)",
    layout="train-volume.tif and train-labels.tif; or folders image and label (in train) with N.png",
    plan=_plan_isbi2012,
    unit="slice",
    shares={"unet2022": {"train": 0.8, "val": 0.1, "test": 0.1}},  # 24, 3 and 3 of 30
)
ISIC = Converter(
    name="isic",
    summary="dermoscopy of skin lesions, ISIC 2016, 2017 or 2018, with PH2 as test set where present",
    layout="the challenge's folders for training images and masks, 'PH2 Dataset images' beside; or images and masks",
    plan=_plan_isic,
    unit="picture",
)
POLYP = Converter(
    name="polyp",
    summary="endoscopy of polyps: PraNet's 1450 for training and 798 in five test sets, or one set alone",
    layout="TrainDataset/{image,mask} and TestDataset/SET/{images,masks} (singular or plural); images, masks; or "
    "Original, Ground Truth",
    plan=_plan_polyp,
    unit="picture",
)
