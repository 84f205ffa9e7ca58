"""What every converter declares, and how a conversion is previewed and run."""

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase, Reader, ReadOptions
from nnunetv2_levit.dataset_conversion.raw_dataset import dataset_folder_name, write_raw_dataset
from nnunetv2_levit.dataset_conversion.readers import read_volumes
from nnunetv2_levit.dataset_conversion.source_files import (
    check_cases,
    check_encodable,
    left_out_notes,
    unreadable_source_named,
)
from nnunetv2_levit.dataset_conversion.splits import (
    SEED,
    Fold,
    cross_validation,
    fixed_split,
    group_counts,
    proportional_split,
)
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.environment import nnunet_folder

Shares = dict[str, float]
# voxel sizes of clinical CT and MRI lie between 0.1 and 20 mm
MIN_SPACING, MAX_SPACING = 0.01, 100.0
MAX_WORKERS = 256


@dataclass(frozen=True)
class ConversionRequest:
    """What a user asks of a conversion.

    ``organs``, ``task`` and ``spacing`` (mm along x, y and z) are for the converters that list them in their options.
    """

    source: Path
    dataset_id: int
    splits: str = "crossval"
    test_split: str | None = None
    organs: int = 8
    task: str | None = None
    spacing: tuple[float, ...] | None = None
    fix_geometry: bool = False
    keep_copies: bool = False
    overwrite: bool = False
    workers: int = 4
    progress: bool = False


@dataclass(frozen=True)
class Plan:
    """What a conversion would do: its dataset, cases and reader, and files left out, each with the reason."""

    description: DatasetDescription
    cases: list[RawCase]
    read: Reader = read_volumes
    label_map: dict[int, int] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Converter:
    """One published dataset.

    Attributes:
        layout: what the source must look like, for a person.
        shares: schemes of ``--splits`` of which the paper gives the shares of patients only.
        validation_cases: schemes whose validation cases the paper lists.
        unit: what folds keep whole; anything but "patient" where the release does not say whose its images are.
        options: what else of a request it reads; given to another converter, it is refused.
        test_splits: lists of cases that ``--test-split`` can set aside as imagesTs and labelsTs.
    """

    name: str
    summary: str
    layout: str
    plan: Callable[[ConversionRequest], Plan]
    shares: dict[str, Shares] = field(default_factory=dict)
    validation_cases: dict[str, frozenset[str]] = field(default_factory=dict)
    test_splits: tuple[str, ...] = ()
    unit: str = "patient"
    options: tuple[str, ...] = ()

    @property
    def schemes(self) -> tuple[str, ...]:
        return ("crossval", *self.shares, *self.validation_cases, "none")


def _split_notes(by_patient: dict[str, list[str]], folds: list[Fold] | None, converter: Converter) -> list[str]:
    """What folds do not keep apart."""
    notes = []
    several = sum(len(cases) > 1 for cases in by_patient.values())
    if folds is None and several:
        notes.append(
            f"no folds were written, and nnU-Net's own are by case: they part the cases of {several} patients who have "
            "several"
        )
    if folds is not None and len(folds) == 1:
        notes.append("there is fold 0 only: for any other nnUNetv2_train draws cases at random, patients parted")
    if converter.unit != "patient":
        notes.append(
            f"the release does not say which of its {converter.unit}s are of the same patient: folds and intervals "
            f"take each {converter.unit} for a patient"
        )
    return notes


def make_splits(
    cases: Sequence[RawCase], *, scheme: str, converter: Converter
) -> tuple[list[Fold] | None, dict[str, Any], list[str]]:
    """Folds of the training cases by ``scheme``, what the summary says of them, and notes."""
    training = [case for case in cases if not case.test]
    by_patient: dict[str, list[str]] = {}
    for case in training:
        by_patient.setdefault(case.patient, []).append(case.identifier)
    groups = {case.patient: case.group for case in training}
    if scheme == "none":
        return None, {"scheme": scheme}, _split_notes(by_patient, None, converter)
    decision: dict[str, Any] = {"scheme": scheme}
    if scheme == "crossval":
        folds = cross_validation(by_patient, groups)
        decision |= {
            "seed": SEED,
            "source": f"ours: grouped by {converter.unit}, stratified by group where there are groups",
        }
    elif scheme in converter.validation_cases:
        folds = [fixed_split(by_patient, converter.validation_cases[scheme])]
        empty = next((side for side, cases in folds[0].items() if not cases), None)
        if empty is not None:
            raise UserError(
                f"--splits {scheme} leaves no case for {empty}, as the source lacks them: choose other splits"
            )
        decision["source"] = "the paper's list of cases"
    else:
        if len(by_patient) < 10:
            raise UserError(f"--splits {scheme} needs at least 10 patients, {len(by_patient)} were found: use none")
        parts = proportional_split(by_patient, groups, shares=converter.shares[scheme])
        folds = [{"train": parts["train"], "val": parts["val"]}]
        decision |= {
            "seed": SEED,
            "source": "ours: the paper gives the shares only, so these cases are not the paper's",
            "test": parts.get("test", []),
        }
    if set(groups.values()) != {"unknown"}:
        decision["groups"] = [{side: group_counts(fold[side], by_patient, groups) for side in fold} for fold in folds]
    return folds, decision, _split_notes(by_patient, folds, converter)


def _check_request(converter: Converter, request: ConversionRequest) -> None:
    """Refuse what no source could make right: options of another converter, and values out of range."""
    for option in ("organs", "task", "spacing"):
        given = getattr(request, option) != getattr(ConversionRequest, option)
        if given and option not in converter.options:
            raise UserError(f"--{option} means nothing to {converter.name}: leave it out")
    if request.spacing is not None:
        shown = " ".join(f"{value:g}" for value in request.spacing)
        # false for NaN, too
        if len(request.spacing) != 3 or not all(MIN_SPACING <= value <= MAX_SPACING for value in request.spacing):
            raise UserError(f"--spacing {shown} is not three numbers from {MIN_SPACING:g} to {MAX_SPACING:g} mm")
    if not 1 <= request.workers <= MAX_WORKERS:
        raise UserError(
            f"--workers {request.workers} is outside 1 to {MAX_WORKERS}: give the number of your processors"
        )
    if request.splits not in converter.schemes:
        raise UserError(
            f"{converter.name} has no splits {request.splits!r}: choose one of {', '.join(converter.schemes)}"
        )
    if request.test_split is not None and request.test_split not in converter.test_splits:
        known = ", ".join(converter.test_splits) or "none"
        raise UserError(f"{converter.name} has no test split {request.test_split!r}: known are {known}")
    if request.test_split is not None and request.splits == request.test_split:
        raise UserError(
            f"--splits {request.splits} validates on the cases that --test-split sets aside: give one of them"
        )


def _check_folder(source: Path) -> None:
    """Refuse a source that is no folder."""
    check_encodable(source)
    if source.is_file():
        archive = zipfile.is_zipfile(source) or tarfile.is_tarfile(source)
        what = "an archive: unpack it and give the folder" if archive else "a file: give the dataset's folder"
        raise UserError(f"{source} is {what}")
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give the dataset as released, unpacked")


def checked_plan(converter: Converter, request: ConversionRequest) -> Plan:
    """The plan of a conversion.

    Raises:
        UserError: a request that can't be met, an archive or nothing instead of a folder, a source without cases, or a
            file that is missing or can't be read.
    """
    _check_request(converter, request)
    with unreadable_source_named(request.source):
        _check_folder(request.source)
        plan = converter.plan(request)
        check_cases(plan.cases)
    if not any(not case.test for case in plan.cases):
        raise UserError(f"{request.source} holds no training cases of {converter.name}; expected is {converter.layout}")
    make_splits(plan.cases, scheme=request.splits, converter=converter)  # refuses what can't be split, before any work
    return replace(plan, notes=[*plan.notes, *left_out_notes(plan.left_out)])


def run_conversion(converter: Converter, request: ConversionRequest) -> Path:
    """Run a conversion and return the new raw dataset's folder; see `checked_plan` and `write_raw_dataset`."""
    plan = checked_plan(converter, request)
    target = nnunet_folder("nnUNet_raw") / dataset_folder_name(request.dataset_id, plan.description.name)
    if request.source.resolve().is_relative_to(target.parent.resolve() / target.name):
        raise UserError(
            f"the source {request.source} lies in {target}, which the conversion would replace: move it elsewhere"
        )
    return write_raw_dataset(
        plan.description,
        plan.cases,
        dataset_id=request.dataset_id,
        make_splits=partial(make_splits, scheme=request.splits, converter=converter),
        read=plan.read,
        options=ReadOptions(label_map=plan.label_map, fix_geometry=request.fix_geometry, spacing=request.spacing),
        keep_copies=request.keep_copies,
        overwrite=request.overwrite,
        workers=request.workers,
        progress=request.progress,
        decisions={**plan.decisions, "left_out": plan.left_out},
        notes=plan.notes,
    )


def preview(converter: Converter, request: ConversionRequest) -> str:
    """What a conversion would do, without reading images or writing anything."""
    plan = checked_plan(converter, request)
    folds, decision, notes = make_splits(plan.cases, scheme=request.splits, converter=converter)
    training = [case for case in plan.cases if not case.test]
    lines = [
        f"{dataset_folder_name(request.dataset_id, plan.description.name)} from {request.source}",
        f"labels: {', '.join(f'{name} {value}' for name, value in plan.description.labels.items())}",
        f"channels: {', '.join(plan.description.channel_names)}",
        f"{len(training)} training cases of {len({case.patient for case in training})} patients, "
        f"{len(plan.cases) - len(training)} test cases",
    ]
    if plan.description.published_cases not in (None, len(training)):
        lines.append(f"note: {plan.description.published_cases} training cases are published")
    lines += [f"note: {note}" for note in [*plan.notes, *notes]]
    lines.append(f"splits: {request.splits} ({decision.get('source', 'none written')})")
    lines += [f"  fold {i}: {len(f['train'])} training, {len(f['val'])} validation" for i, f in enumerate(folds or [])]
    for case in plan.cases:
        remark = " (test)" if case.test else ""
        lines.append(f"  {case.identifier}{remark}: {case.images[0]}")
    lines += [f"left out: {path}: {reason}" for path, reason in plan.left_out.items()]
    return "\n".join(lines)
