"""What a converter hands to the writer: descriptions, cases as files, and cases in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.dataset_conversion.nifti import NiftiVolume
from nnunetv2_levit.errors import UserError


@dataclass(frozen=True)
class RawCase:
    """One case: its image files (one a channel), its label file, whose it is, and whether it is for testing.

    ``part`` says which part of a file that holds several cases, such as a slice of a volume.
    """

    identifier: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    group: str = "unknown"
    test: bool = False
    part: int | None = None


@dataclass(frozen=True)
class DatasetDescription:
    """What ``dataset.json`` says of a dataset; labels by name, 0 being the background.

    ``published_cases`` is the number of training cases of the release; another count is worth a warning.
    """

    name: str
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    citation: str
    license: str
    reference: str
    file_ending: str = ".nii.gz"
    published_cases: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def check_labels(labels: dict[str, int]) -> None:
    """Make sure that nnU-Net can train on these labels and that they fit into bytes.

    Raises:
        UserError: no ``background`` of value 0, or values that are not 0, 1, 2, … up to 255.
    """
    if labels.get("background") != 0:
        raise UserError("the label 0 must be there and be named 'background', as nnU-Net needs it: correct the labels")
    values = sorted(labels.values())
    if values != list(range(len(values))) or values[-1] > 255:
        raise UserError(
            f"the label values {', '.join(map(str, values))} are not 0, 1, 2, … (255 at most), as nnU-Net needs them: "
            "correct the labels"
        )
    if len(values) < 2:
        raise UserError("there is no label but the background: name what is to be segmented")


def check_label_map(label_map: dict[int, int], labels: dict[str, int]) -> None:
    """Make sure that a map of labels goes from bytes to the dataset's labels.

    Raises:
        UserError: a value outside 0 to 255, or one that is none of the dataset's.
    """
    for source, target in label_map.items():
        if not 0 <= source <= 255:
            raise UserError(f"the label {source} that is mapped to {target} is outside 0 to 255: correct the map")
        if target not in labels.values():
            raise UserError(f"the label {source} is mapped to {target}, none of the dataset's: correct the map")


@dataclass(frozen=True)
class ReadOptions:
    """How cases are read.

    Attributes:
        label_map: from the values of the source to those of the dataset; None for values that are the dataset's.
        fix_geometry: where only the header of a label differs from its image's, take the image's.
        spacing: voxel size in mm along x, y and z, for sources that have lost it.
    """

    label_map: dict[int, int] | None = None
    fix_geometry: bool = False
    spacing: tuple[float, ...] | None = None


@dataclass
class LoadedCase:
    """A case in memory, checked: channels as files' content or arrays, labels as uint8, all of one shape.

    Volumes have index order (x, y, z) and an affine in mm; pictures have (row, column) or (row, column, RGB) and None.
    """

    channels: list[NiftiVolume] | list[np.ndarray]
    labels: np.ndarray | None
    affine: np.ndarray | None
    digest: str
    remarks: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.channels[0].shape)

    @property
    def channel_count(self) -> int:
        """How many channels nnU-Net will find: a colour picture, which is one file, has three."""
        if self.affine is not None:
            return len(self.channels)
        return sum(channel.shape[2] if len(channel.shape) == 3 else 1 for channel in self.channels)

    @property
    def spacing(self) -> list[float] | None:
        if self.affine is None:
            return None
        return [round(float(v), 6) for v in np.linalg.norm(self.affine[:3, :3], axis=0)]


Reader = Callable[[RawCase, ReadOptions, frozenset[int]], LoadedCase]
