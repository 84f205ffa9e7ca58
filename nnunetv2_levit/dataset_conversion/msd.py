"""Tasks of the Medical Segmentation Decathlon (Antonelli et al. 2022), with or without their dataset.json."""

import re
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_levit import schemas
from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase, check_labels
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, Converter, Plan
from nnunetv2_levit.dataset_conversion.nifti import NIFTI_ENDINGS, find_nifti
from nnunetv2_levit.dataset_conversion.readers import read_channels
from nnunetv2_levit.dataset_conversion.source_files import entries, unused
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


def _names_by_number(content: dict, key: str, path: Path) -> dict[int, str]:
    """Names by their number, in order.

    Raises:
        UserError: a name that is none, or a number that occurs twice (such as 1 and 01).
    """
    names = {int(number): name for number, name in content[key].items()}
    for name in names.values():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UserError(f"{path} has {name!a} in {key!r} where a name is needed: correct it")
    if len(names) != len(content[key]):
        raise UserError(f"{path} has a number twice in {key!r} ({', '.join(content[key])}): correct it")
    return dict(sorted(names.items()))


def _task_from_json(path: Path) -> tuple[str, tuple[str, ...], dict[str, int]]:
    content = read_json(path, what="a dataset.json of the Decathlon", schema=schemas.DECATHLON)
    label_names = _names_by_number(content, "labels", path)
    channels = _names_by_number(content, "modality", path)
    name = re.sub(r"[^A-Za-z0-9]", "", content.get("name", "MSD").title()) or "MSD"
    if not channels or list(channels) != list(range(len(channels))):
        numbers = ", ".join(map(str, channels)) or "no channels"
        raise UserError(f"{path} has {numbers} in 'modality': number the channels 0, 1, …, at least one")
    labels = {label: value for value, label in label_names.items()}
    if len(labels) != len(label_names):
        raise UserError(f"{path} has two labels of one name ({', '.join(label_names.values())}): name them apart")
    try:
        check_labels(labels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return name, tuple(channels.values()), labels


def _cases(folder: Path, labels: Path | None, *, test: bool) -> list[RawCase]:
    cases = []
    for path in entries(folder):
        if not path.name.endswith(NIFTI_ENDINGS):
            continue
        identifier = path.name.removesuffix(".gz").removesuffix(".nii")
        label = None
        if labels is not None:
            label = find_nifti(labels, identifier)
            if label is None:
                raise UserError(f"{path} has no label: {identifier}.nii.gz is missing in {labels}")
        cases.append(RawCase(identifier, (path,), label, patient=identifier, test=test))
    return cases


def _plan(request: ConversionRequest) -> Plan:
    source = request.source
    if not (source / "imagesTr").is_dir() or not (source / "labelsTr").is_dir():
        raise UserError(f"{source} lacks imagesTr or labelsTr: give a task's folder, such as Task04_Hippocampus")
    if request.task is not None and request.task not in tuple(TASKS):  # argparse makes a list of --task=--
        raise UserError(f"--task {request.task} is no task of the Decathlon: choose one of {', '.join(TASKS)}")
    cases = _cases(source / "imagesTr", source / "labelsTr", test=False)
    left_out = unused(entries(source / "imagesTr"), [case.images[0] for case in cases], "no NIfTI image")
    left_out |= unused(entries(source / "labelsTr"), [case.label for case in cases], "a label without image")
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
    return Plan(description, cases, read=read_channels, left_out=left_out, notes=notes)


MSD = Converter(
    name="msd",
    summary="a task of the Medical Segmentation Decathlon",
    layout="imagesTr/NAME_NNN.nii.gz and labelsTr/NAME_NNN.nii.gz, imagesTs and dataset.json where present",
    plan=_plan,
    unit="case",
    options=("task",),
)
