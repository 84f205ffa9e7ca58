"""The one writer of nnU-Net raw datasets: all cases checked and written beside the target, then renamed into place.

A converter says which files are cases and what the labels mean; everything else happens here.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit import schemas
from nnunetv2_levit.dataset_conversion.cases import (
    DatasetDescription,
    LoadedCase,
    RawCase,
    Reader,
    ReadOptions,
    check_label_map,
    check_labels,
)
from nnunetv2_levit.dataset_conversion.nifti import NiftiVolume, write_array, write_image
from nnunetv2_levit.dataset_conversion.readers import read_volumes
from nnunetv2_levit.dataset_conversion.source_files import check_cases
from nnunetv2_levit.dataset_conversion.splits import Fold
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, replaced_at_the_end, write_json
from nnunetv2_levit.nnunet.environment import NNUNET_FOLDERS, nnunet_folder

MAX_NAME_LENGTH = 100


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """``DatasetNNN_NAME``, checked against nnU-Net's rules."""
    if not 1 <= dataset_id <= 999:
        raise UserError(f"the dataset id {dataset_id} is outside 1 to 999, which nnU-Net's folder names allow")
    if len(name) > MAX_NAME_LENGTH:
        raise UserError(f"the dataset name {name[:20]}… has {len(name)} characters: use {MAX_NAME_LENGTH} at most")
    if "__" in name or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"the dataset name {name!r} must consist of letters, digits, '-' and single '_'")
    return f"Dataset{dataset_id:03d}_{name}"


def _check_channels(case: RawCase, loaded: LoadedCase, description: DatasetDescription) -> None:
    """Refuse a case of more or fewer channels than ``dataset.json`` will declare."""
    found, declared = loaded.channel_count, description.channel_names
    if found != len(declared):
        channels = "1 channel" if found == 1 else f"{found} channels"
        raise UserError(
            f"{case.images[0]} has {channels} where {len(declared)} are declared "
            f"({', '.join(declared)}): correct the image, or the source's dataset.json where it has one"
        )


def _write_case(
    case: RawCase, root: Path, description: DatasetDescription, read: Reader, options: ReadOptions
) -> dict[str, Any]:
    """Read and check one case and write its files under ``root``; returns the facts that the summary keeps."""
    side = "Ts" if case.test else "Tr"
    loaded = read(case, options, frozenset(description.labels.values()))
    _check_channels(case, loaded, description)
    ending = description.file_ending
    for channel, content in enumerate(loaded.channels):
        target = root / f"images{side}" / f"{case.identifier}_{channel:04d}{ending}"
        if loaded.affine is None:
            Image.fromarray(np.asarray(content)).save(target)
        elif isinstance(content, NiftiVolume):
            write_image(content, loaded.affine, target)
        else:
            write_array(np.asarray(content), loaded.affine, target)
    facts: dict[str, Any] = {
        "patient": case.patient,
        "group": case.group,
        "images": [str(path) for path in case.images],
        "shape": list(loaded.shape),
        "spacing_mm": loaded.spacing,
        "sha256": loaded.digest,
    }
    if case.part is not None:
        facts["part"] = case.part
    if loaded.remarks:
        facts["remarks"] = loaded.remarks
    if loaded.labels is not None:
        target = root / f"labels{side}" / f"{case.identifier}{ending}"
        if loaded.affine is not None:
            write_array(loaded.labels, loaded.affine, target)
        else:
            Image.fromarray(loaded.labels).save(target)
        counts = np.bincount(loaded.labels.ravel(order="K"))
        facts["label"] = str(case.label)
        facts["label_sha256"] = hashlib.sha256(loaded.labels.tobytes()).hexdigest()
        facts["voxels"] = {str(value): int(count) for value, count in enumerate(counts) if count}
    return facts


def _same_images(facts: dict[str, dict[str, Any]], *, keep_copies: bool) -> list[list[str]]:
    """Groups of cases with the same image.

    Raises:
        UserError: two cases with the same image and the same label or both without one, which is a copy (unless
            ``keep_copies``).
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(facts):
        group = groups.setdefault(facts[name]["sha256"], [])
        for other in group:
            label = facts[name].get("label_sha256")
            if not keep_copies and facts[other].get("label_sha256") == label:
                first, second = facts[other]["images"][0], facts[name]["images"][0]
                labels = "without a label" if label is None else "with the same label"
                raise UserError(f"{second} is a copy of {first}, {labels}: remove one, or add --keep-copies")
        group.append(name)
    return [group for group in groups.values() if len(group) > 1]


def _with_shared_patients(cases: Sequence[RawCase], same_images: list[list[str]]) -> list[RawCase]:
    """The cases, those of patients who share an image given to the first of these patients."""
    patient_of = {case.identifier: case.patient for case in cases}
    owner = {patient: patient for patient in patient_of.values()}
    for group in same_images:
        first = min(owner[patient_of[name]] for name in group)
        merged = {owner[patient_of[name]] for name in group}
        owner = {patient: first if value in merged else value for patient, value in owner.items()}
    return [replace(case, patient=owner[case.patient]) for case in cases]


def write_raw_dataset(
    description: DatasetDescription,
    cases: Sequence[RawCase],
    *,
    dataset_id: int,
    make_splits: Callable[[Sequence[RawCase]], tuple[list[Fold] | None, dict[str, Any], list[str]]],
    read: Reader = read_volumes,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    keep_copies: bool = False,
    overwrite: bool = False,
    workers: int = 4,
    progress: bool = False,
    decisions: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write ``nnUNet_raw/DatasetNNN_NAME`` from ``cases``: all of it, or nothing.

    Beside nnU-Net's own files it holds ``conversion.json``: sources, hashes, shapes, label volumes, versions, decisions
    and notes. ``make_splits`` gets the cases with patients who share an image made one, and returns folds (None for
    none), what the summary says of them, and notes. nnU-Net's planner copies ``splits_final.json`` to the preprocessed
    dataset.

    Raises:
        UserError: no cases, an existing target, or a faulty file; the sentence names it.
    """
    training = [case for case in cases if not case.test]
    if not training:
        raise UserError("there are no training cases to convert")
    check_labels(description.labels)
    if options.label_map is not None:
        check_label_map(options.label_map, description.labels)
    check_cases(cases)
    folder = nnunet_folder("nnUNet_raw")
    target = folder / dataset_folder_name(dataset_id, description.name)
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
        raise UserError(f"{target} is {'a link' if target.is_symlink() else 'a file'} and no folder: remove it")
    _check_id(dataset_id, target.name)

    advice = "remove it, choose another id, or add --overwrite"
    with replaced_at_the_end(target, overwrite=overwrite, advice=advice) as root:
        for side in ("imagesTr", "labelsTr"):
            (root / side).mkdir()
        if any(case.test for case in cases):
            (root / "imagesTs").mkdir()
            if any(case.test and case.label is not None for case in cases):
                (root / "labelsTs").mkdir()
        facts: dict[str, Any] = {}
        # threads: reading, (de)compressing and writing all release the interpreter lock
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            futures = {pool.submit(_write_case, case, root, description, read, options): case for case in cases}
            try:
                bar = tqdm(
                    as_completed(futures),
                    total=len(futures),
                    desc=f"converting {description.name}",
                    disable=not progress,
                )
                for future in bar:
                    facts[futures[future].identifier] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        same_images = _same_images(facts, keep_copies=keep_copies)
        splits, split_decision, split_notes = make_splits(_with_shared_patients(cases, same_images))
        notes = [*notes, *_notes(description, facts, len(training)), *split_notes]
        notes += [_same_image_note(group, cases, splits) for group in same_images]
        if splits is not None and not splits:
            notes.append("there is one training patient only, so no folds were written: train with fold all")
        dataset_json = {
            "channel_names": {str(i): name for i, name in enumerate(description.channel_names)},
            "labels": description.labels,
            "numTraining": len(training),
            "file_ending": description.file_ending,
            "name": description.name,
            "citation": description.citation,
            "license": description.license,
            "reference": description.reference,
            "converted_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
            **description.extra,
        }
        write_json(root / "dataset.json", dataset_json)
        if splits:
            write_json(root / "splits_final.json", splits)
        write_json(
            root / "conversion.json",
            {
                "converter": f"nnunetv2_levit {nnunetv2_levit.__version__}",
                "notes": notes,
                "decisions": {**(decisions or {}), "splits": split_decision},
                "same_images": same_images,
                "cases": dict(sorted(facts.items())),
            },
        )
    return target


def _check_id(dataset_id: int, name: str) -> None:
    """Refuse an id that another dataset has in any of nnU-Net's folders, in all of which nnU-Net looks for it."""
    for variable in NNUNET_FOLDERS:
        folder = os.environ.get(variable)
        for other in Path(folder).glob(f"Dataset{dataset_id:03d}_*") if folder else ():
            if other.name != name:
                raise UserError(f"the id {dataset_id} is taken by {other}: choose another id")


def _same_image_note(names: list[str], cases: Sequence[RawCase], splits: list[Fold] | None) -> str:
    """What a person should know of cases with the same image."""
    said = f"{' and '.join(names)} have the same image"
    tests = {case.identifier for case in cases if case.test} & set(names)
    training = set(names) - tests
    if tests and training:
        return f"{said}, for training and for testing: figures of the test cases will be too good"
    if tests:
        return f"{said}, in the test set"
    for number, fold in enumerate(splits or []):
        if training & set(fold["train"]) and training & set(fold["val"]):
            return f"{said}, for training and for validation in fold {number}: its figures will be too good"
    if splits is None:
        return f"{said}: keep them in the same fold"
    return f"{said}: they stay in the same fold"


def _notes(description: DatasetDescription, facts: dict[str, dict[str, Any]], training: int) -> list[str]:
    """What a person should know of a conversion that went well."""
    notes = []
    if description.published_cases is not None and training != description.published_cases:
        notes.append(f"{training} training cases were found, {description.published_cases} are published")
    empty = sorted(name for name, fact in facts.items() if set(fact.get("voxels", ())) == {"0"})
    if empty:
        notes.append(f"{len(empty)} cases have an empty label: {_first(empty)}")
    fixed = sorted(name for name, fact in facts.items() if "remarks" in fact)
    if fixed:
        notes.append(f"{len(fixed)} cases took the geometry of their image: {_first(fixed)}")
    return notes


def _first(names: Sequence[str], number: int = 5) -> str:
    """The first names, and a sign that there are more."""
    return ", ".join(names[:number]) + (" …" if len(names) > number else "")


def stale_preprocessed_splits(dataset: Path) -> Path | None:
    """The preprocessed dataset's ``splits_final.json`` where it is not the raw one just written, if any.

    nnU-Net's planner copies the raw splits only where there are none yet, and fails an assertion where they differ.
    Where none was written, training goes on with what is there.
    """
    folder, written = os.environ.get("nnUNet_preprocessed"), dataset / "splits_final.json"  # noqa: SIM112
    present = Path(folder or "") / dataset.name / "splits_final.json"
    if not folder or not present.is_file():
        return None
    if not written.is_file():
        return present
    try:
        before, after = (read_json(path, what="nnU-Net's folds", schema=schemas.SPLITS) for path in (present, written))
    except UserError:  # the conversion itself went well, and what can't be read has to go as well
        return present
    return present if before != after else None


def conversion_notes(dataset: Path) -> list[str]:
    """The notes of the conversion that wrote a raw dataset."""
    path = dataset / "conversion.json"
    return read_json(path, what="a converter's summary", schema=schemas.CONVERSION_WITH_NOTES)["notes"]
