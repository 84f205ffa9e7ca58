"""One look at a whole raw dataset: a labelled slice of each case, and a table with outliers marked."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import check_writable, read_json, write_json, write_text, write_whole, written_together
from nnunetv2_levit.image_files import differing_geometry, read_images, read_label_file
from nnunetv2_levit.nnunet.dataset_description import allowed_labels, training_files
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.plain_text import figure_label, markdown_table

OUTLIER_FACTOR = 6.0  # of the median absolute deviation, scaled to a standard deviation
COLUMNS = 10


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
    return facts, image, labels[index]


def _outliers(values: np.ndarray) -> np.ndarray:
    """Whether each value is far from the others: by the median absolute deviation, and by 60 % at least."""
    centre = np.nanmedian(values)
    scale = 1.4826 * np.nanmedian(np.abs(values - centre))
    scale = max(scale, 0.1 * abs(centre), 1e-9)
    return np.nan_to_num(np.abs(values - centre) / scale) > OUTLIER_FACTOR


def mark_outliers(rows: list[dict[str, Any]], labels: dict[str, int]) -> None:
    """Add ``outliers`` to each row: which of its spacing, intensities and label volumes are far from the others'."""
    columns: dict[str, np.ndarray] = {}
    for axis in range(3):
        columns[f"spacing {'zyx'[axis]}"] = np.array([row["spacing_mm"][axis] for row in rows])
    columns["median intensity"] = np.array([row["intensity_1_50_99"][1] for row in rows])
    columns["99th percentile"] = np.array([row["intensity_1_50_99"][2] for row in rows])
    for name, value in labels.items():
        if value:
            volumes = np.array([row["labels"].get(str(value), np.nan) for row in rows])
            columns[f"{name} volume"] = np.log(volumes)
    for row in rows:
        row["outliers"] = ["no label at all"] * (not row["labels"])
    for name, values in columns.items():
        if np.isnan(values).all():
            continue
        for row, far in zip(rows, _outliers(values), strict=True):
            if far:
                row["outliers"].append(name)


def as_markdown(rows: list[dict[str, Any]], labels: dict[str, int]) -> str:
    """The table; label volumes in ml, or pixels for pictures."""
    names = [name for name, value in labels.items() if value]
    unit = rows[0]["label_unit"]
    head = [
        "case",
        "shape",
        "spacing (mm)",
        "intensity 1 / 50 / 99 %",
        *(f"{name} ({unit})" for name in names),
        "outliers",
    ]
    lines = []
    for row in rows:
        cells = [
            row["case"],
            "×".join(map(str, row["shape"])),
            " × ".join(f"{v:.3g}" for v in row["spacing_mm"]),
            " / ".join(f"{v:.4g}" for v in row["intensity_1_50_99"]),
            *(f"{row['labels'].get(str(labels[name]), 0):.4g}" for name in names),
            ", ".join(row["outliers"]),
        ]
        lines.append(cells)
    return markdown_table(head, lines)


def _draw(pictures: list[tuple[dict[str, Any], np.ndarray, np.ndarray]], labels: dict[str, int], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.75 * rows + 0.5), squeeze=False)
    colours = plt.get_cmap("tab10" if max(labels.values()) <= 10 else "tab20")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.axis("off")
    for axis, (facts, image, mask) in zip(axes.flat, pictures, strict=False):
        axis.axis("on")
        if image.ndim == 3:
            axis.imshow(image / max(1.0, image.max()))
        else:
            low, high = np.percentile(image, (1, 99.5))
            aspect = facts["spacing_mm"][1] / facts["spacing_mm"][2]
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        for value in np.unique(mask[mask > 0]).astype(int):
            axis.contour(mask == value, levels=[0.5], colors=[colours((value - 1) % colours.N)], linewidths=0.8)
        colour = "red" if facts["outliers"] else "black"
        axis.set_title(figure_label(facts["case"]), fontsize=5, color=colour, pad=2)
        for spine in axis.spines.values():
            spine.set(color=colour, linewidth=2 if facts["outliers"] else 0.5)
    handles = [
        plt.Line2D([], [], color=colours((v - 1) % colours.N), label=figure_label(name))
        for name, v in labels.items()
        if v
    ]
    figure.legend(handles=handles, loc="lower center", ncol=min(8, len(handles)), fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.35 / (1.75 * rows + 0.5), 1, 1), pad=0.3)
    figure.savefig(target, dpi=100)
    plt.close(figure)


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
    labels = {"background": 0, **{k: v for k, v in description["labels"].items() if isinstance(v, int)}}
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
    mark_outliers(rows, labels)
    with written_together(target) as partial:
        write_json(partial / "overview.json", {"dataset": dataset.name, "cases": rows})
        write_text(partial / "overview.md", as_markdown(rows, labels))
        write_whole(partial / "overview.png", lambda path: _draw(pictures, labels, path))
    return target / "overview.png", rows
