"""Tasks of the Medical Segmentation Decathlon (Antonelli et al. 2022), with or without their dataset.json."""

import re
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_levit import schemas
from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import Converter, Plan, Request
from nnunetv2_levit.dataset_conversion.nifti import NIFTI_ENDINGS, find_nifti
from nnunetv2_levit.dataset_conversion.readers import read_channels
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json

CITATION = "Antonelli et al., Nature Communications 13:4128, 2022, doi 10.1038/s41467-022-30695-9"


@dataclass(frozen=True)
class Task:
    """Channels, labels and published number of training cases of one task."""

    name: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    cases: int


# by the prefix of the case names, for sources without dataset.json
TASKS = {
    "BRATS": Task(
        "BrainTumour", ("FLAIR", "T1w", "t1gd", "T2w"), ("edema", "non-enhancing tumor", "enhancing tumour"), 484
    ),
    "la": Task("Heart", ("MRI",), ("left atrium",), 20),
    "liver": Task("Liver", ("CT",), ("liver", "cancer"), 131),
    "hippocampus": Task("Hippocampus", ("MRI",), ("Anterior", "Posterior"), 260),
    "prostate": Task("Prostate", ("T2", "ADC"), ("PZ", "TZ"), 32),
    "lung": Task("Lung", ("CT",), ("cancer",), 63),
    "pancreas": Task("Pancreas", ("CT",), ("pancreas", "cancer"), 281),
    "hepaticvessel": Task("HepaticVessel", ("CT",), ("Vessel", "Tumour"), 303),
    "spleen": Task("Spleen", ("CT",), ("spleen",), 41),
    "colon": Task("Colon", ("CT",), ("colon cancer primaries",), 126),
}


def _task_from_json(path: Path) -> tuple[str, tuple[str, ...], dict[str, int]]:
    content = read_json(path, what="a dataset.json of the Decathlon", schema=schemas.DECATHLON)
    labels = {name: int(value) for value, name in content["labels"].items()}
    if len(labels) < len(content["labels"]) or len(set(labels.values())) < len(labels):
        raise UserError(f"{path}: labels gives two labels one name, or one label two: restore or remove it")
    channels = tuple(content["modality"][key] for key in sorted(content["modality"], key=int))
    name = re.sub(r"[^A-Za-z0-9]", "", content.get("name", "MSD").title()) or "MSD"
    return name, channels, labels


def _cases(folder: Path, labels: Path | None, *, test: bool) -> list[RawCase]:
    cases = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(NIFTI_ENDINGS):
            continue  # the release holds macOS's ._ files
        identifier = path.name.removesuffix(".gz").removesuffix(".nii")
        label = None
        if labels is not None:
            label = find_nifti(labels, identifier)
            if label is None:
                raise UserError(f"{path} has no label: {identifier}.nii.gz is missing in {labels}")
        cases.append(RawCase(identifier, (path,), label, patient=identifier, test=test))
    return cases


def _plan(request: Request) -> Plan:
    source = request.source
    if not (source / "imagesTr").is_dir() or not (source / "labelsTr").is_dir():
        raise UserError(f"{source} lacks imagesTr or labelsTr: give a task's folder, such as Task04_Hippocampus")
    cases = _cases(source / "imagesTr", source / "labelsTr", test=False)
    if (source / "imagesTs").is_dir():
        cases += _cases(source / "imagesTs", None, test=True)
    prefix = cases[0].identifier.rpartition("_")[0] if cases else ""
    task = TASKS.get(request.task or prefix)
    published, notes = None if task is None else task.cases, []
    if (source / "dataset.json").exists():
        name, channels, labels = _task_from_json(source / "dataset.json")
        name = name if task is None else task.name
    elif task is not None:
        name, channels = task.name, task.channels
        labels = {"background": 0, **{label: value for value, label in enumerate(task.labels, start=1)}}
        notes.append(f"there is no dataset.json: channels and labels are those published for {task.name}")
    else:
        raise UserError(
            f"{source} has no dataset.json and its cases named {prefix!r} are of no known task: add --task with one of "
            f"{', '.join(TASKS)}"
        )
    description = DatasetDescription(
        name=name,
        channel_names=channels,
        labels=labels,
        citation=CITATION,
        license="CC BY-SA 4.0",
        reference="http://medicaldecathlon.com",
        published_cases=published,
    )
    return Plan(description, cases, read=read_channels, notes=notes)


MSD = Converter(
    name="msd",
    summary="a task of the Medical Segmentation Decathlon",
    layout="imagesTr/NAME_NNN.nii.gz and labelsTr/NAME_NNN.nii.gz, imagesTs and dataset.json where present",
    plan=_plan,
)
