"""One look at a whole raw dataset: a labelled slice of each case, and a table with outliers marked."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.figures import draw_overview
from nnunetv2_levit.files import check_writable, read_json, write_json, write_text, write_whole, written_together
from nnunetv2_levit.image_files import differing_geometry, read_images, read_label_file
from nnunetv2_levit.nnunet.dataset_description import allowed_labels, structures_of, training_files
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.tables import overview_markdown

OUTLIER_FACTOR = 6.0  # of the median absolute deviation, scaled to a standard deviation
LEAST_DIFFERENCE = 0.6  # of an outlier from the median
USUAL = 0.75  # share of the cases with a structure from which a case without it is an outlier
PICTURE_SIDE = 300  # pixels: more than a case has in the figure


def _measure(
    name: str, files: dict[str, Any], reader: Any, allowed: frozenset[int]
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Facts of one case, and the slice with most label (or the middle one) as image and labels.

    Raises:
        UserError: a file that is not whole, labels that are not in ``allowed``, or a label that does not fit the image.
    """
    images, properties = read_images([Path(path) for path in files["images"]], reader)
    label = Path(files["label"])
    labels, label_properties = read_label_file(label, reader, allowed=allowed)
    different = differing_geometry((images.shape[1:], properties), (labels.shape, label_properties))
    if different is not None:
        what, ours, theirs = different
        raise UserError(
            f"{files['images'][0]} and {label} differ in {what}, {ours} and {theirs}: correct one of them, or convert "
            "the dataset anew"
        )
    spacing = [float(v) for v in properties["spacing"]]
    values, counts = np.unique(labels, return_counts=True)
    low, median, high = (float(v) for v in np.percentile(images[0], (1, 50, 99)))
    picture = images.shape[1] == 1 and spacing[0] == 999  # nnU-Net's stand-in for a third dimension
    voxel = spacing[1] * spacing[2] if picture else float(np.prod(spacing)) / 1000
    areas = (labels > 0).reshape(labels.shape[0], -1).sum(axis=1)
    index = int(areas.argmax()) if areas.any() else labels.shape[0] // 2
    facts = {
        "case": name,
        "shape": [int(side) for side in images.shape[1:]],
        "spacing_mm": spacing,
        "intensity_1_50_99": [low, median, high],
        "label_unit": "pixels" if picture else "ml",
        "labels": {str(v): round(float(n * voxel), 3) for v, n in zip(values, counts, strict=True) if v != 0},
    }
    image = images[:3, index].transpose(1, 2, 0) if images.shape[0] == 3 and picture else images[0, index]
    step = max(1, min(image.shape[:2]) // PICTURE_SIDE)
    # copies: a view would keep the whole volume in memory
    return facts, image[::step, ::step].copy(), labels[index, ::step, ::step].copy()


def _outliers(values: np.ndarray) -> np.ndarray:
    """Whether each value is far from the others: by the median absolute deviation, and by 60 % at least."""
    centre = np.nanmedian(values)
    return _far(values, centre, at_least=LEAST_DIFFERENCE * abs(centre))


def _outlying_volumes(volumes: np.ndarray) -> np.ndarray:
    """The same of volumes, by their ratios to the median (1.6, or 1 to 1.6, at least); a volume of zero is none."""
    logarithms = np.log(np.where(volumes > 0, volumes, np.nan))
    return _far(logarithms, np.nanmedian(logarithms), at_least=float(np.log(1 + LEAST_DIFFERENCE)))


def _far(values: np.ndarray, centre: float, *, at_least: float) -> np.ndarray:
    distances = np.abs(values - centre)
    limit = max(OUTLIER_FACTOR * 1.4826 * float(np.nanmedian(distances)), at_least, 1e-9)
    return np.nan_to_num(distances) > limit


def mark_outliers(rows: list[dict[str, Any]], structures: Mapping[str, Sequence[int]]) -> None:
    """Add ``outliers`` to each row: which of its spacing, intensities and label volumes are far from the others'.

    A structure is one label, or several where the dataset has regions. A case that lacks one that most have is marked.
    """
    columns: dict[str, np.ndarray] = {}
    for axis in range(3):
        columns[f"spacing {'zyx'[axis]}"] = _outliers(np.array([row["spacing_mm"][axis] for row in rows]))
    columns["median intensity"] = _outliers(np.array([row["intensity_1_50_99"][1] for row in rows]))
    columns["99th percentile"] = _outliers(np.array([row["intensity_1_50_99"][2] for row in rows]))
    empty = np.array([not row["labels"] for row in rows])
    columns["no label at all"] = empty
    for name, values_of_it in structures.items():
        volumes = np.array([sum(row["labels"].get(str(value), 0) for value in values_of_it) for row in rows])
        if (volumes > 0).any():
            columns[f"{name} volume"] = _outlying_volumes(volumes)
        if (volumes > 0).mean() >= USUAL:
            columns[f"no {name}"] = (volumes == 0) & ~empty
    for index, row in enumerate(rows):
        row["outliers"] = [name for name, marked in columns.items() if marked[index]]


def inspect(dataset_id: int, *, output: Path | None = None, workers: int = 4) -> tuple[Path, list[dict[str, Any]]]:
    """Write ``overview.png``, ``.md`` and ``.json`` of a raw dataset's training cases, into its folder by default.

    Raises:
        UserError: no such dataset, or a case that can't be read.
    """
    dataset = dataset_folder("nnUNet_raw", dataset_id, advice="convert it first")
    target = output or dataset
    check_writable(target, folder=True)
    if not (dataset / "dataset.json").is_file():
        raise UserError(f"{dataset} has no dataset.json: convert the dataset anew")
    description = read_json(dataset / "dataset.json", what="nnU-Net's dataset.json", schema=schemas.DATASET_WITH_IMAGES)
    allowed = allowed_labels(description)
    structures, ignored = structures_of(description)
    reader, files = training_files(dataset, description)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        jobs = {name: pool.submit(_measure, name, entry, reader, allowed) for name, entry in sorted(files.items())}
        pictures = []
        for name, job in tqdm(jobs.items(), desc=f"inspecting {dataset.name}"):
            try:
                pictures.append(job.result())
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
            except Exception as error:
                raise UserError(
                    f"the case {name} of {dataset} can't be read ({error}): convert the dataset anew"
                ) from error
    rows = [facts for facts, _, _ in pictures]
    mark_outliers(rows, structures)
    with written_together(target) as partial:
        write_json(partial / "overview.json", {"dataset": dataset.name, "cases": rows})
        write_text(partial / "overview.md", overview_markdown(rows, structures))
        write_whole(
            partial / "overview.png",
            lambda path: draw_overview(pictures, structures=structures, ignored=ignored, target=path),
        )
    return target / "overview.png", rows
