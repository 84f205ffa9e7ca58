"""ACDC, the automated cardiac diagnosis challenge (Bernard et al. 2018): ED and ES frames of cine MRI.

Layout of the release: ``training/patientNNN/`` and ``testing/patientNNN/`` with ``patientNNN_frameMM.nii.gz``,
``…_gt.nii.gz``, ``Info.cfg`` and a 4D file, which is not used.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, Converter, Plan
from nnunetv2_levit.dataset_conversion.nifti import find_nifti
from nnunetv2_levit.dataset_conversion.source_files import entries
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
GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")  # the release's five, of as many patients each
FRAME = re.compile(r"(patient\d+)_frame(\d+)(\.nii\.gz|\.nii)$")


@dataclass(frozen=True)
class _Info:
    """Entries of an ``Info.cfg``, and why they give no group, if so."""

    path: Path
    entries: dict[str, str]
    problem: str | None

    @property
    def group(self) -> str:
        return "unknown" if self.problem else self.entries["Group"]


def _read_info(path: Path) -> _Info:
    """What an ``Info.cfg`` says; nothing where it is missing or can't be read, as some copies of the release lack it.

    Raises:
        UserError: a line of another form, or an entry that occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _Info(path, {}, "no Info.cfg")
    except (OSError, UnicodeDecodeError):
        return _Info(path, {}, "an Info.cfg that can't be read")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            key, colon, value = line.partition(":")
            if not colon:
                raise UserError(
                    f"{path}, line {number}: {line.strip()!r} is not of the form 'ED: 1': correct or remove it"
                )
            if found.setdefault(key.strip(), value.strip()) != value.strip():
                raise UserError(f"{path}, line {number}: {key.strip()} is given twice: remove one of the lines")
    problem = None
    if "Group" not in found:
        problem = "no Group in their Info.cfg"
    elif found["Group"] not in GROUPS:
        problem = f"a Group in their Info.cfg that is none of {', '.join(GROUPS)}"
    return _Info(path, found, problem)


def _patient_cases(folder: Path, info: _Info, *, test: bool) -> list[RawCase]:
    frames: dict[int, Path] = {}
    for path in entries(folder):
        match = FRAME.fullmatch(path.name)
        if match and match.group(1) == folder.name:
            other = frames.setdefault(int(match.group(2)), path)
            if other is not path:
                raise UserError(f"{other} and {path} are the same frame: remove one of them")
    if not frames:
        raise UserError(
            f"{folder} holds no frame named {folder.name}_frameNN.nii.gz: give the release as it is unpacked"
        )
    named = {}
    for phase in ("ED", "ES"):
        if phase in info.entries:
            value = info.entries[phase]
            if not re.fullmatch(r"[0-9]{1,6}", value):
                raise UserError(
                    f"{info.path}: {phase} is {value[:20]!r} where a frame number is needed: restore the release's"
                )
            named[phase] = int(value)
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
                group=info.group,
                test=test,
            )
        )
    return cases


def _patients(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir() and re.fullmatch(r"patient\d+", path.name)]


def _find(source: Path) -> tuple[list[RawCase], list[_Info]]:
    """Cases under ``source``, and the ``Info.cfg`` of each training patient."""
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give ACDC's root, or its training folder")
    parts = [(source, False)]
    if source.resolve().name == "testing":
        raise UserError(f"{source} holds ACDC's patients for testing: give its root, or its training folder")
    if (source / "training").is_dir():
        parts = [(source / "training", False), (source / "testing", True)]
    cases, infos = [], []
    for folder, test in parts:
        for patient in _patients(folder) if folder.exists() else ():
            info = _read_info(patient / "Info.cfg")
            cases += _patient_cases(patient, info, test=test)
            if not test:
                infos.append(info)
    return cases, infos


def find_cases(source: Path) -> list[RawCase]:
    """Cases under ``source``: the release's root, or its ``training`` folder.

    Raises:
        UserError: no such folder, no patients in it, or a patient that is not whole.
    """
    return _find(source)[0]


def _group_notes(infos: list[_Info]) -> list[str]:
    """Which patients have no group, by which the folds are stratified."""
    by_problem: dict[str, list[_Info]] = {}
    for info in infos:
        if info.problem is not None:
            by_problem.setdefault(info.problem, []).append(info)
    notes = []
    for problem, group in by_problem.items():
        found = group[0].entries.get("Group")
        example = str(group[0].path) if found is None else f"{group[0].path} ({found!r})"
        notes.append(
            f"{len(group)} of {len(infos)} training patients have {problem}, such as {example}: folds are stratified "
            "without their group"
        )
    return notes


def _plan(request: ConversionRequest) -> Plan:
    cases, infos = _find(request.source)
    return Plan(
        DESCRIPTION,
        cases,
        decisions={"spacing": "pixdim; orientation from the sform, else the qform"},
        notes=_group_notes(infos),
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
