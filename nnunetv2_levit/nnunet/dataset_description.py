"""What nnU-Net's dataset.json says: channels, structures, allowed labels, files and their reader."""

from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.image_files import check_image_file


def dataset_description(candidates: Sequence[Path]) -> tuple[dict[str, Any], Path]:
    """The first ``dataset.json`` of some folders.

    Raises:
        UserError: none of them has one.
    """
    for folder in candidates:
        if (folder / "dataset.json").exists():
            path = folder / "dataset.json"
            return read_json(path, what="nnU-Net's dataset.json", schema=schemas.DATASET), folder
    raise UserError(
        f"no dataset.json in {', '.join(map(str, candidates))}: give the dataset's id with -d "
        "(nnUNet_raw must be set), so that the structures have names"
    )


def structures_of(description: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Structures of a dataset.json (labels or regions) by name, and the ignore label if there is one.

    Raises:
        UserError: a label that is no whole number, or nothing but the background.
    """
    structures, ignored = {}, None
    for name, value in description["labels"].items():
        values = value if isinstance(value, list | tuple) else [value]
        values = [int(v) if isinstance(v, str) and v.isdecimal() else v for v in values]  # as nnU-Net reads them
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            raise UserError(f"dataset.json gives {name!r} the label {value!r}: labels are whole numbers from 0 on")
        if name == "ignore":
            ignored = values[0]
        elif name != "background":
            structures[name] = tuple(values)
    if not structures:
        raise UserError("dataset.json names no structure beside the background")
    return structures, ignored


def allowed_labels(description: dict[str, Any]) -> frozenset[int]:
    """Labels that a ground truth may hold: the background, those of the structures, and the ignore label.

    Raises:
        UserError: see `structures_of`.
    """
    structures, ignored = structures_of(description)
    return frozenset({0}.union(*structures.values(), () if ignored is None else (ignored,)))


def number_of_channels(description: dict[str, Any]) -> int:
    """Channels of an image; they are called ``modality`` in datasets of nnU-Net v1."""
    return len(description.get("channel_names", description.get("modality", ())))


def reader_of(description: dict[str, Any]) -> type:
    """nnU-Net's reader for the files of a dataset.json (its file ending, or the reader it names)."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    return determine_reader_writer_from_dataset_json(description, None, verbose=False)


def training_files(dataset: Path, description: dict[str, Any]) -> tuple[Any, dict[str, dict[str, Any]]]:
    """nnU-Net's reader for a raw dataset, and the files of its training cases: ``images`` and ``label`` by case.

    Raises:
        UserError: there are no cases, or none of nnU-Net's readers can read the first one.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        files = get_filenames_of_train_images_and_targets(str(dataset), description)
    except Exception as error:
        raise UserError(f"the training cases of {dataset} can't be listed ({error}): convert it anew") from error
    if not files or not all(entry["images"] for entry in files.values()):
        raise UserError(f"{dataset / 'imagesTr'} holds no images of {description.get('file_ending')}: convert it anew")
    first = next(iter(files.values()))["images"][0]
    check_image_file(Path(first))
    try:
        # nnU-Net prints the traceback of each reader that can't read the file
        with redirect_stderr(StringIO()), np.errstate(over="ignore"):
            reader = determine_reader_writer_from_dataset_json(description, first, verbose=False)
    except RuntimeError:
        raise UserError(
            f"none of nnU-Net's readers can read {first}: correct it, or convert the dataset anew"
        ) from None
    return reader(), files
