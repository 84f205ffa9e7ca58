"""Cases as nnU-Net's preprocessing stored them, whatever the format."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class


def preprocessed_images(folder: Path, *, at_most: int) -> Iterator[np.ndarray]:
    """Images (C, D, H, W) in fp32 of the first cases of a configuration's preprocessed folder."""
    dataset_class = infer_dataset_class(str(folder))
    identifiers = dataset_class.get_identifiers(str(folder))[:at_most]
    dataset = dataset_class(str(folder), identifiers)
    for identifier in identifiers:
        yield np.asarray(dataset.load_case(identifier)[0], dtype=np.float32)
