"""The one writer of nnU-Net raw datasets: all cases checked and written beside the target, then renamed into place.

A converter says which files are cases and what the labels mean; everything else happens here.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit.dataset_conversion.nifti import SPACING_TOLERANCE_MM, read_nifti, write_image, write_labels
from nnunetv2_levit.dataset_conversion.splits import Fold
from nnunetv2_levit.errors import UserError

FILE_ENDING = ".nii.gz"
AFFINE_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class RawCase:
    """One case: its image files (one a channel), its label file, whose it is, and whether it is for testing."""

    identifier: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    group: str = "unknown"
    test: bool = False


@dataclass(frozen=True)
class DatasetDescription:
    """What ``dataset.json`` says of a dataset; labels by name, 0 being the background."""

    name: str
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    citation: str
    license: str
    reference: str
    extra: dict[str, Any] = field(default_factory=dict)


def nnunet_folder(variable: str) -> Path:
    """One of nnU-Net's three folders.

    Raises:
        UserError: the environment variable is unset or names a file.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(f"the environment variable {variable} is not set: export {variable}=/path/to/a/folder")
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise UserError(f"{variable} names {path}, which is not a folder")
    return path


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """``DatasetNNN_NAME``, checked against nnU-Net's rules."""
    if not 1 <= dataset_id <= 999:
        raise UserError(f"the dataset id {dataset_id} is outside 1 to 999, which nnU-Net's folder names allow")
    if "__" in name or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"the dataset name {name!r} must consist of letters, digits, '-' and single '_'")
    return f"Dataset{dataset_id:03d}_{name}"


def _write_case(case: RawCase, root: Path, label_values: set[int]) -> dict[str, Any]:
    """Check one case and write its files under ``root``; returns the facts that the summary keeps."""
    side = "Ts" if case.test else "Tr"
    images = [read_nifti(path) for path in case.images]
    first = images[0]
    for image in images:
        if image.shape != first.shape:
            raise UserError(
                f"{image.path} has shape {image.shape} and {first.path} has {first.shape}: they must be equal"
            )
        data = image.image.dataobj.get_unscaled()
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise UserError(f"{image.path} contains NaN or infinite voxels: replace them before converting")
    facts = {
        "patient": case.patient,
        "group": case.group,
        "images": [str(path) for path in case.images],
        "shape": list(first.shape),
        "spacing_mm": [round(v, 6) for v in first.spacing],
    }
    if case.label is not None:
        label = read_nifti(case.label)
        if label.shape != first.shape:
            raise UserError(
                f"{label.path} has shape {label.shape} and {first.path} has {first.shape}: they must be equal"
            )
        if not np.allclose(label.spacing, first.spacing, atol=SPACING_TOLERANCE_MM):
            raise UserError(
                f"{label.path} has spacing {label.spacing} and {first.path} has {first.spacing} mm: they must be equal"
            )
        if not np.allclose(label.affine, first.affine, atol=AFFINE_TOLERANCE_MM):
            raise UserError(
                f"{label.path} lies elsewhere in space than {first.path}: origin and direction must be equal"
            )
        values = np.asanyarray(label.image.dataobj)
        found, counts = np.unique(values, return_counts=True)
        foreign = [float(v) for v in found if v not in label_values]
        if foreign:
            raise UserError(
                f"{label.path} contains the label {foreign[0]:g}, none of {sorted(label_values)}: correct the file"
            )
        facts["label"] = str(case.label)
        facts["voxels"] = {str(int(v)): int(n) for v, n in zip(found, counts, strict=True)}
        write_labels(values, first.affine, root / f"labels{side}" / f"{case.identifier}{FILE_ENDING}")
    for channel, image in enumerate(images):
        write_image(image, root / f"images{side}" / f"{case.identifier}_{channel:04d}{FILE_ENDING}")
    return facts


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def replaced_at_the_end(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well, and vanishes otherwise.

    Folders left by a killed process are removed first. Raises UserError where ``target`` exists (unless
    ``overwrite``) or can't be written.
    """
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already: remove it, choose another id, or add --overwrite")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_over in target.parent.glob(f".{target.name}.partial-*"):
            if not _is_running(left_over.name.rsplit("-", 1)[1]):
                shutil.rmtree(left_over, ignore_errors=True)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        partial.mkdir()
    except OSError as error:
        raise UserError(
            f"{target.parent} can't be written ({error.strerror}): mend its permissions or choose another"
        ) from None
    try:
        yield partial
        previous = None
        if target.exists():
            previous = target.with_name(f".{target.name}.previous-{os.getpid()}")
            target.rename(previous)
        try:
            partial.rename(target)
        except OSError:
            if previous is not None:
                previous.rename(target)
            raise
        if previous is not None:
            shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{target} could not be written ({error.strerror or error}): nothing was left behind"
            ) from None
        raise


def write_raw_dataset(
    description: DatasetDescription,
    cases: Sequence[RawCase],
    *,
    dataset_id: int,
    splits: list[Fold] | None,
    overwrite: bool = False,
    workers: int = 4,
    decisions: dict[str, Any] | None = None,
) -> Path:
    """Write ``nnUNet_raw/DatasetNNN_NAME`` from ``cases``: all of it, or nothing.

    Beside nnU-Net's own files it holds ``conversion.json``: sources, shapes, label volumes, versions and decisions.
    nnU-Net's planner copies ``splits_final.json`` to the preprocessed dataset.

    Raises:
        UserError: no cases, an existing target, or a faulty file; the sentence names it.
    """
    training = [case for case in cases if not case.test]
    if not training:
        raise UserError("there are no training cases to convert")
    identifiers = [case.identifier for case in cases]
    if len(set(identifiers)) != len(identifiers):
        twice = next(name for name in identifiers if identifiers.count(name) > 1)
        raise UserError(f"the case {twice} occurs twice in the source: remove one of its copies")
    folder = nnunet_folder("nnUNet_raw")
    target = folder / dataset_folder_name(dataset_id, description.name)
    for other in folder.glob(f"Dataset{dataset_id:03d}_*"):
        if other != target:
            raise UserError(f"the id {dataset_id} is taken by {other}: choose another id")

    with replaced_at_the_end(target, overwrite=overwrite) as root:
        for side in ("imagesTr", "labelsTr"):
            (root / side).mkdir()
        if any(case.test for case in cases):
            (root / "imagesTs").mkdir()
            if any(case.test and case.label is not None for case in cases):
                (root / "labelsTs").mkdir()
        facts: dict[str, Any] = {}
        label_values = set(description.labels.values())
        # threads: reading, (de)compressing and writing all release the interpreter lock
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            futures = {pool.submit(_write_case, case, root, label_values): case for case in cases}
            try:
                for future in tqdm(as_completed(futures), total=len(futures), desc=f"converting {description.name}"):
                    facts[futures[future].identifier] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        dataset_json = {
            "channel_names": {str(i): name for i, name in enumerate(description.channel_names)},
            "labels": description.labels,
            "numTraining": len(training),
            "file_ending": FILE_ENDING,
            "name": description.name,
            "citation": description.citation,
            "license": description.license,
            "reference": description.reference,
            "converted_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
            **description.extra,
        }
        _write_json(root / "dataset.json", dataset_json)
        if splits:
            _write_json(root / "splits_final.json", splits)
        _write_json(
            root / "conversion.json",
            {
                "converter": f"nnunetv2_levit {nnunetv2_levit.__version__}",
                "decisions": decisions or {},
                "cases": dict(sorted(facts.items())),
            },
        )
    return target


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def stale_preprocessed_splits(dataset: Path) -> Path | None:
    """The preprocessed dataset's ``splits_final.json`` where it differs from the raw one just written, if any.

    nnU-Net's planner copies the raw splits only where there are none yet, and fails an assertion where they differ.
    """
    folder, written = os.environ.get("nnUNet_preprocessed"), dataset / "splits_final.json"  # noqa: SIM112
    if not folder or not written.is_file():
        return None
    present = Path(folder) / dataset.name / "splits_final.json"
    if present.is_file() and json.loads(present.read_text()) != json.loads(written.read_text()):
        return present
    return None
