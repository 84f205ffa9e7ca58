"""Synapse, the BTCV abdominal CT (Landman et al. 2015), as released or in TransUNet's preprocessed form."""

import importlib.util
import re
from pathlib import Path

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, Converter, Plan
from nnunetv2_levit.dataset_conversion.nifti import find_nifti
from nnunetv2_levit.dataset_conversion.readers import read_transunet_arrays
from nnunetv2_levit.dataset_conversion.source_files import entries, unused
from nnunetv2_levit.errors import UserError

BTCV_ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
# order and selection of the papers, since TransUNet
PAPER_ORGANS = (
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
# TransUNet's 12 test cases; the other 18 are for training
TEST_CASES = frozenset({1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38})
PUBLISHED_CASES = 30


def _identifier(number: int) -> str:
    return f"case{number:04d}"


def _organs(count: int) -> tuple[dict[str, int], dict[int, int]]:
    """Labels by name, and the map from BTCV's values."""
    names = BTCV_ORGANS if count == 13 else PAPER_ORGANS
    labels = {"background": 0, **{name: value for value, name in enumerate(names, start=1)}}
    return labels, {0: 0, **{value: labels.get(name, 0) for value, name in enumerate(BTCV_ORGANS, start=1)}}


def _description(channel: str, labels: dict[str, int], published: int) -> DatasetDescription:
    return DatasetDescription(
        name="Synapse",
        channel_names=(channel,),
        labels=labels,
        citation="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015, doi 10.7303/syn3193805",
        license="by registration with Synapse",
        reference="https://www.synapse.org/#!Synapse:syn3193805/wiki/217789",
        published_cases=published,
    )


def _plan(request: ConversionRequest) -> Plan:
    source = request.source
    if request.organs not in (8, 13):
        raise UserError(f"--organs is 8 (the papers') or 13 (all of BTCV), not {request.organs}")
    if (source / "train_npz").is_dir() or (source / "test_vol_h5").is_dir():
        return _plan_transunet(request)
    for folder in (source, source / "Training", source / "RawData" / "Training"):
        if (folder / "img").is_dir() and (folder / "label").is_dir():
            return _plan_release(request, folder)
    raise UserError(f"{source} is neither BTCV's release (img and label) nor TransUNet's (train_npz and test_vol_h5)")


def _plan_release(request: ConversionRequest, folder: Path) -> Plan:
    if request.spacing is not None:
        raise UserError(f"--spacing is for TransUNet's form; the files of {folder} hold theirs: leave it out")
    labels, label_map = _organs(request.organs)
    cases, left_out = [], {}
    for path in entries(folder / "img"):
        match = re.fullmatch(r"img(\d{4})(\.nii\.gz|\.nii)", path.name)
        if match is None:
            left_out[str(path)] = "not named imgNNNN.nii.gz"
            continue
        number = int(match[1])
        label = find_nifti(folder / "label", f"label{match[1]}")
        if label is None:
            raise UserError(f"{path} has no label: label{match[1]}.nii.gz is missing in {folder / 'label'}")
        test = request.test_split == "transunet" and number in TEST_CASES
        cases.append(RawCase(_identifier(number), (path,), label, patient=_identifier(number), test=test))
    left_out |= unused(entries(folder / "label"), [case.label for case in cases], "a label without image")
    left_out |= {
        str(p): "not part of the labelled data" for p in entries(request.source) if p.name.startswith("averaged")
    }
    published = PUBLISHED_CASES - len(TEST_CASES) if request.test_split == "transunet" else PUBLISHED_CASES
    decisions = {"organs": request.organs, "label_map": {str(k): v for k, v in label_map.items()}}
    return Plan(
        _description("CT", labels, published), cases, label_map=label_map, left_out=left_out, decisions=decisions
    )


def _plan_transunet(request: ConversionRequest) -> Plan:
    """Slices ``caseNNNN_sliceMMM.npz`` stacked to volumes for training, volumes ``caseNNNN.npy.h5`` for testing."""
    if request.organs != 8:
        raise UserError(
            f"TransUNet's form in {request.source} holds 8 organs only: leave out --organs {request.organs}"
        )
    labels, _ = _organs(8)
    slices: dict[int, dict[int, Path]] = {}
    left_out = {}
    for folder, pattern in (("train_npz", r"case(\d{4})_slice(\d{3})\.npz"), ("test_vol_h5", r"case(\d{4})\.npy\.h5")):
        for path in entries(request.source / folder) if (request.source / folder).exists() else ():
            match = re.fullmatch(pattern, path.name)
            if match is None:
                left_out[str(path)] = f"not named as TransUNet names {folder}"
            elif folder == "train_npz":
                slices.setdefault(int(match[1]), {})[int(match[2])] = path
            elif int(match[1]) in slices:
                raise UserError(
                    f"case{match[1]} is in train_npz and as {path}: remove one of them, as each case counts once"
                )
            else:
                slices[int(match[1])] = {0: path}
    cases = []
    for number, files in sorted(slices.items()):
        if sorted(files) != list(range(len(files))):
            missing = next(i for i in range(len(files)) if i not in files)
            raise UserError(
                f"slice {missing} of case{number:04d} is missing in {request.source / 'train_npz'}: restore it"
            )
        paths = tuple(files[i] for i in sorted(files))
        volume = paths[0].name.endswith(".h5")
        if volume and importlib.util.find_spec("h5py") is None:
            raise UserError(f"{paths[0]} needs h5py, not installed here: pip install 'nnunetv2_levit[synapse-h5]'")
        test = volume and request.test_split == "transunet"
        cases.append(RawCase(_identifier(number), paths, paths[0], patient=_identifier(number), test=test))
    notes = []
    if request.spacing is None:
        notes.append(
            "TransUNet's files have lost their spacing and 1 mm is written: give --spacing, or read no mm from it"
        )
    published = PUBLISHED_CASES - len(TEST_CASES) if request.test_split == "transunet" else PUBLISHED_CASES
    return Plan(
        # not "CT": nnU-Net would take these clipped and rescaled intensities for Hounsfield units
        _description("rescaled CT", labels, published),
        cases,
        read=read_transunet_arrays,
        left_out=left_out,
        decisions={"spacing_mm": list(request.spacing or (1.0, 1.0, 1.0)), "orientation": "lost; identity written"},
        notes=notes,
    )


SYNAPSE = Converter(
    name="synapse",
    summary="BTCV abdominal CT: 8 organs of the papers, or 13",
    layout="img/imgNNNN.nii.gz and label/labelNNNN.nii.gz; or TransUNet's train_npz/caseNNNN_sliceMMM.npz and "
    "test_vol_h5/caseNNNN.npy.h5",
    plan=_plan,
    validation_cases={"transunet": frozenset(_identifier(number) for number in TEST_CASES)},
    test_splits=("transunet",),
    options=("organs", "spacing"),
)
