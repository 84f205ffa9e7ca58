"""Converting a published dataset by its name: `convert` of the public API."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, run_conversion
from nnunetv2_levit.dataset_conversion.converters import converter_named
from nnunetv2_levit.dataset_conversion.raw_dataset import conversion_notes, stale_preprocessed_splits


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        folder: the raw dataset, ``nnUNet_raw/DatasetNNN_NAME``.
        notes: what a person should know of it, a sentence each.
    """

    folder: Path
    notes: list[str]


def convert(
    dataset: str,
    *,
    source: str | Path,
    dataset_id: int,
    splits: str = "crossval",
    test_split: str | None = None,
    organs: int = 8,
    task: str | None = None,
    spacing: Sequence[float] | None = None,
    fix_geometry: bool = False,
    keep_copies: bool = False,
    overwrite: bool = False,
    workers: int = 4,
    progress: bool = False,
) -> Conversion:
    """Convert a published dataset to nnU-Net's raw format: all of it, or nothing.

    Args:
        dataset: name of a converter, such as "acdc" (``nnunetv2_levit convert --list`` shows all).
        source: the dataset as released and unpacked.
        dataset_id: nnU-Net's, 1 to 999.
        splits: "crossval" (5 folds by patient), "none", or a paper's.
        test_split: "transunet" sets Synapse's 12 test cases aside.
        organs: of Synapse, 8 (the papers') or 13.
        task: of the Decathlon, where there is no dataset.json.
        spacing: (x, y, z) in mm, for sources that lost it.
        fix_geometry: labels take the header of their image.
        keep_copies: keep cases with the same image and label.
        overwrite: replace an existing dataset of this id and name.
        workers: cases in parallel.
        progress: show a progress bar.

    Raises:
        UserError: a request that can't be met, or a source that is not whole; the sentence names the file.
    """
    request = ConversionRequest(
        source=Path(source),
        dataset_id=dataset_id,
        splits=splits,
        test_split=test_split,
        organs=organs,
        task=task,
        spacing=None if spacing is None else tuple(spacing),
        fix_geometry=fix_geometry,
        keep_copies=keep_copies,
        overwrite=overwrite,
        workers=workers,
        progress=progress,
    )
    folder = run_conversion(converter_named(dataset), request)
    notes = conversion_notes(folder)
    stale = stale_preprocessed_splits(folder)
    if stale is not None:
        notes.append(f"{stale} holds other splits, at which nnU-Net stops or which it uses: remove it before planning")
    return Conversion(folder, notes)
