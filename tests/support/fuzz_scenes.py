"""Clean inputs of the subcommands that read images, small enough for hundreds of runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from tests.evaluation.conftest import LABELS, heart, write_labels
from tests.inference.model_folders import write_case, write_model_folder
from tests.support.header_fuzz import Scene

SPACING = (1.5, 1.5, 10.0)


def _voxels(path: Path) -> list[Any]:
    """Voxels and spacing as nibabel reads them."""
    image = nibabel.load(path)
    zooms = [float(size) for size in image.header.get_zooms()]
    return [np.asanyarray(image.dataobj).tobytes().hex(), list(image.shape), zooms]


def convert_scene(folder: Path) -> Scene:
    """One ACDC patient, with the release's header: spacing in pixdim alone."""
    source = write_phantom(folder / "acdc", patients=1, size=24, slices=2)
    patient = source / "training" / "patient001"
    files = {"image": patient / "patient001_frame01.nii.gz", "label": patient / "patient001_frame01_gt.nii.gz"}

    def result() -> dict[str, Any]:
        (dataset,) = (folder / "converted").iterdir()
        return {str(path.relative_to(dataset)): _voxels(path) for path in sorted(dataset.rglob("*.nii.gz"))}

    def without_values(found: dict[str, Any]) -> dict[str, Any]:
        return {name: facts[1:] if "images" in name else facts for name, facts in found.items()}

    arguments = ("convert", "acdc", "-i", source, "-d", 7, "--overwrite", "--splits", "none")
    return Scene(
        "convert",
        files=files,
        arguments=arguments,
        result=result,
        without_values=without_values,
        raw=folder / "converted",
    )


def evaluate_scene(folder: Path, *, by_nibabel: bool = False) -> Scene:
    """Two cases, written by ITK (qform, sform and pixdim), or written by nibabel in fp32 and read by it."""
    root = folder / ("evaluated_by_nibabel" if by_nibabel else "evaluated")
    for case in ("a", "b"):
        write_labels(root / "labelsTr" / f"{case}.nii.gz", heart(), origin=(5.0, -7.0, 3.0))
        write_labels(root / "predicted" / f"{case}.nii.gz", heart(1), origin=(5.0, -7.0, 3.0))
    description = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "name": "ACDC"}
    if by_nibabel:
        description["overwrite_image_reader_writer"] = "NibabelIO"
        for path in root.rglob("*.nii.gz"):
            image = nibabel.load(path)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine), path)
    (root / "dataset.json").write_text(json.dumps(description))
    files = {"predicted label": root / "predicted" / "a.nii.gz", "true label": root / "labelsTr" / "a.nii.gz"}

    def result() -> dict[str, Any]:
        content = json.loads((root / "out" / "evaluation.json").read_text())
        return {key: content[key] for key in ("cases", "summary", "mean", "empty")}

    arguments = ("evaluate", "-p", root / "predicted", "-g", root / "labelsTr", "-o", root / "out")
    name = "evaluate by nibabel" if by_nibabel else "evaluate"
    return Scene(name, files=files, arguments=arguments, result=result, raw=folder)


def inspect_scene(folder: Path) -> Scene:
    """Two cases of nibabel's, image and label."""
    dataset = folder / "inspected" / "Dataset008_Small"
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (5, -7, 3)
    for case in ("a", "b"):
        image = np.random.default_rng(ord(case)).integers(0, 500, heart().T.shape).astype(np.int16)
        for path, values in ((f"imagesTr/{case}_0000", image), (f"labelsTr/{case}", heart().T)):
            (dataset / path).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), dataset / f"{path}.nii.gz")
    description = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "numTraining": 2}
    # listed here, since nnU-Net lists a folder by a pool of processes
    description["dataset"] = {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in ("a", "b")
    }
    (dataset / "dataset.json").write_text(json.dumps(description))
    files = {"image": dataset / "imagesTr" / "a_0000.nii.gz", "label": dataset / "labelsTr" / "a.nii.gz"}

    def result() -> list[dict[str, Any]]:
        return json.loads((dataset / "overview.json").read_text())["cases"]

    def without_values(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = ("case", "shape", "spacing_mm", "labels")
        return [{key: row[key] for key in kept} for row in rows]

    return Scene(
        "inspect",
        files=files,
        arguments=("inspect", "-d", 8),
        result=result,
        without_values=without_values,
        raw=folder / "inspected",
    )


def write_predict_scene(folder: Path) -> tuple[Path, Path]:
    """A tiny trained-model folder and one image, written by ITK."""
    model = write_model_folder(folder / "model", folds=(0,), patch_size=(32, 32))
    volume = np.random.default_rng(0).random((2, 30, 30)) * 200
    clean = write_case(folder / "clean", "clean", volume)
    image = sitk.ReadImage(str(clean))
    image.SetOrigin((5.0, -7.0, 3.0))
    sitk.WriteImage(image, str(clean))
    return model, clean


def scenes(folder: Path) -> Iterator[Scene]:
    """The scenes of convert, evaluate and inspect."""
    yield convert_scene(folder)
    yield evaluate_scene(folder)
    yield evaluate_scene(folder, by_nibabel=True)
    yield inspect_scene(folder)
