"""Which cases there are to predict, with which files, and where their segmentations go."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_files import check_image_file, read_probabilities
from nnunetv2_levit.nnunet.dataset_description import number_of_channels


@dataclass(frozen=True)
class Case:
    """Files of one case: its channels in order, its segmentation to be written, without the file ending."""

    name: str
    channels: tuple[Path, ...]
    target: Path

    def check_channels(self, found: int, expected: int) -> None:
        """Raise a UserError where its files hold another number of channels than the network takes."""
        if found != expected:
            raise UserError(
                f"{self.channels[0]} is no case of the model's dataset: it has {found} channels, and the network takes "
                f"{expected}"
            )

    def is_complete(self, file_ending: str, *, probabilities: bool) -> bool:
        """Whether everything that a prediction writes is there, to its last byte."""
        try:
            check_image_file(Path(f"{self.target}{file_ending}"))
            if probabilities:
                read_probabilities(Path(f"{self.target}.npz"))
        except UserError:
            return False
        return True


def find_cases(
    folder: Path, output: Path, *, file_ending: str, channels: int, channels_in: Callable[[Sequence[Path]], int]
) -> list[Case]:
    """Cases of ``folder``, by name; a case's files are NAME_0000, NAME_0001, … with the dataset's file ending.

    A file may hold several channels (an RGB picture does): where a case has fewer files than the model has channels,
    ``channels_in`` reads them and says how many there are.

    Raises:
        UserError: no such folder, no files of that kind in it, or a case whose channels are not those of the model.
    """
    if not folder.is_dir():
        raise UserError(f"there is no input folder {folder}")
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}")
    files: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := pattern.fullmatch(path.name)) is not None:
            files.setdefault(match[1], {})[int(match[2])] = path
    if not files:
        raise UserError(
            f"{folder} holds no images for this model: their names must end in _0000{file_ending} (the channel's "
            "number and the file ending of the training data)"
        )
    cases = [
        Case(name, tuple(path for _, path in sorted(found.items())), output / name)
        for name, found in sorted(files.items())
    ]
    usual = {channels}  # numbers of files that make up all channels
    for case in cases:
        numbers = sorted(files[case.name])
        consecutive = numbers == list(range(len(numbers)))
        if consecutive and len(numbers) < channels and len(numbers) not in usual:
            try:
                read = channels_in(case.channels)
            except Exception:  # an unreadable file is reported with its case, later
                continue
            if read == channels:
                usual.add(len(numbers))
        if not consecutive or len(numbers) not in usual:
            have, want = (", ".join(f"_{number:04d}" for number in some) for some in (numbers, range(channels)))
            raise UserError(f"{folder}: the case {case.name} has the channel files {have}, and the model needs {want}")
    return cases


def cases_for(reader: Callable[[], Any], dataset: dict[str, Any], source: Path, output: Path) -> list[Case]:
    """Cases of a folder of images for a model with this reader of nnU-Net's and this dataset description.

    Raises:
        UserError: see `find_cases`.
    """
    return find_cases(
        source,
        output,
        file_ending=dataset["file_ending"],
        channels=number_of_channels(dataset),
        channels_in=lambda files: len(reader().read_images([str(path) for path in files])[0]),
    )


def select(
    cases: Sequence[Case],
    *,
    file_ending: str,
    part: int = 0,
    parts: int = 1,
    only_missing: bool = False,
    probabilities: bool = False,
) -> list[Case]:
    """Every ``parts``-th case from ``part`` on and, with ``only_missing``, of these the ones not predicted yet."""
    chosen = list(cases)[part::parts]
    if only_missing:
        chosen = [case for case in chosen if not case.is_complete(file_ending, probabilities=probabilities)]
    return chosen
