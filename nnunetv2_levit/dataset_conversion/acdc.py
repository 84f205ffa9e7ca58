"""ACDC, the automated cardiac diagnosis challenge (Bernard et al. 2018): ED and ES frames of cine MRI.

Layout of the release: ``training/patientNNN/`` and ``testing/patientNNN/`` with ``patientNNN_frameMM.nii.gz``,
``…_gt.nii.gz``, ``Info.cfg`` and a 4D file, which is not used.
"""

import re
from pathlib import Path

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import Converter, Plan, Request
from nnunetv2_levit.dataset_conversion.nifti import find_nifti
from nnunetv2_levit.errors import UserError

DESCRIPTION = DatasetDescription(
    name="ACDC",
    channel_names=("cineMRI",),
    labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3},
    citation="Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018, doi 10.1109/TMI.2018.2837502",
    license="for research, by registration with the challenge",
    reference="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    published_cases=200,
)
FRAME = re.compile(r"(patient\d+)_frame(\d+)(\.nii\.gz|\.nii)$")


def _read_info(path: Path) -> dict[str, str]:
    """Entries of an ``Info.cfg``; empty where there is none."""
    if not path.is_file():
        return {}
    entries = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if line.strip():
            key, colon, value = line.partition(":")
            if not colon:
                raise UserError(
                    f"{path}, line {number}: {line.strip()!r} is not of the form 'ED: 1': correct or remove it"
                )
            entries[key.strip()] = value.strip()
    return entries


def _patient_cases(folder: Path, *, test: bool) -> list[RawCase]:
    info = _read_info(folder / "Info.cfg")
    frames = {}
    for path in sorted(folder.iterdir()):
        match = FRAME.fullmatch(path.name)
        if match and match.group(1) == folder.name:
            frames[int(match.group(2))] = path
    if not frames:
        raise UserError(
            f"{folder} holds no frame named {folder.name}_frameNN.nii.gz: give the release as it is unpacked"
        )
    named = {}
    for phase in ("ED", "ES"):
        if phase in info:
            if not info[phase].isdigit():
                raise UserError(f"{folder / 'Info.cfg'}: {phase} is {info[phase]!r} where a frame number is needed")
            named[phase] = int(info[phase])
            if named[phase] not in frames:
                raise UserError(
                    f"{folder / 'Info.cfg'} names frame {named[phase]} as {phase}, and "
                    f"{folder.name}_frame{named[phase]:02d}.nii.gz is missing: restore it from the release"
                )
    if named and set(frames) - set(named.values()):
        extra = frames[min(set(frames) - set(named.values()))]
        raise UserError(f"{extra} is neither ED nor ES by {folder / 'Info.cfg'}: remove it, or correct Info.cfg")
    cases = []
    for frame, image in sorted(frames.items()):
        stem = image.name.removesuffix(".gz").removesuffix(".nii")
        label = find_nifti(folder, f"{stem}_gt")
        if label is None and not test:
            raise UserError(f"{image} has no ground truth: {stem}_gt.nii.gz is missing beside it")
        cases.append(
            RawCase(
                identifier=f"{folder.name}_frame{frame:02d}",
                images=(image,),
                label=label,
                patient=folder.name,
                group=info.get("Group", "unknown"),
                test=test,
            )
        )
    return cases


def _patients(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"patient\d+", path.name))


def find_cases(source: Path) -> list[RawCase]:
    """Cases under ``source``: the release's root, or its ``training`` folder.

    Raises:
        UserError: no such folder, no patients in it, or a patient that is not whole.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give ACDC's root, or its training folder")
    parts = [(source, False)]
    if (source / "training").is_dir():
        parts = [(source / "training", False), (source / "testing", True)]
    cases = [
        case
        for folder, test in parts
        if folder.is_dir()
        for patient in _patients(folder)
        for case in _patient_cases(patient, test=test)
    ]
    return cases


def _plan(request: Request) -> Plan:
    return Plan(
        DESCRIPTION,
        find_cases(request.source),
        decisions={"spacing": "pixdim; orientation from the sform, else the qform"},
    )


ACDC = Converter(
    name="acdc",
    summary="cardiac cine MRI, ED and ES frames (Bernard et al. 2018)",
    layout="training/patientNNN/ (and testing/) with patientNNN_frameMM.nii.gz, _gt.nii.gz, Info.cfg; or training",
    plan=_plan,
    # LeViT-UNet, section 4.1: 80 patients for training, 20 for testing. UNet-2022: 70, 10 and 20. Neither lists them.
    shares={
        "levit_unet": {"train": 0.8, "val": 0.2},
        "unet2022": {"train": 0.7, "val": 0.1, "test": 0.2},
    },
)
