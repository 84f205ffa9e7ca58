"""Trained 2D models as ONNX files: batch norm folded, any batch size, checked against torch before they are kept."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import beside, check_writable, write_json, write_whole
from nnunetv2_levit.inference.onnx_backend import OnnxBackend, require_onnx, to_onnx
from nnunetv2_levit.nnunet.preprocessed_data import preprocessed_images
from nnunetv2_levit.nnunet.trained_model import TrainedModel, load_trained_model

TOLERANCE = 1e-4  # largest difference of a logit, relative to the largest logit where that exceeds 1
CHECKED_CASES = 3


def load_fold(model: Path, fold: int | str, checkpoint: str, *, trust_checkpoint: bool = False) -> TrainedModel:
    """One fold of a trained model.

    Raises:
        UserError: something of the model is missing or does not fit, or it is a 3D configuration.
    """
    trained = load_trained_model(model, folds=(fold,), checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    trained.require_2d("exported")
    return trained


def real_slices(preprocessed: Path | None, *, patch_size: Sequence[int]) -> Tensor | None:
    """Middle slices of some preprocessed cases, cut or padded with zeros to the patch: (N, C, h, w), or None."""
    if preprocessed is None:
        return None
    slices = []
    for volume in preprocessed_images(preprocessed, at_most=CHECKED_CASES):
        image = volume[:, volume.shape[1] // 2]
        patch = np.zeros((image.shape[0], *patch_size), dtype=np.float32)
        height, width = (min(a, b) for a, b in zip(image.shape[1:], patch_size, strict=True))
        patch[:, :height, :width] = image[:, :height, :width]
        slices.append(torch.from_numpy(patch))
    return torch.stack(slices) if slices else None


def compare(network: nn.Module, model: bytes, images: Tensor) -> dict[str, float]:
    """Largest difference of a logit between torch and ONNX Runtime, and largest logit.

    Compared are the batch and its first image alone.

    Raises:
        UserError: it is larger than rounding explains.
    """
    backend = OnnxBackend(model)
    difference = largest = 0.0
    with torch.no_grad():
        for batch in (images, images[:1]):
            expected = network.eval()(batch)
            error = (backend(batch) - expected).abs().max().item()
            largest = max(largest, expected.abs().max().item())
            if not error <= TOLERANCE * max(1.0, largest):  # not <=: NaN is an error too
                raise UserError(
                    f"the exported model's logits differ from torch's by {error:.1e}: it was not kept; please report "
                    "this with the versions of torch, onnx and onnxruntime"
                )
            difference = max(difference, error)
    return {"max_abs_difference": difference, "max_abs_logit": largest}


def export(
    model: str | Path,
    *,
    output: str | Path,
    fold: int | str = 0,
    checkpoint: str = "checkpoint_final.pth",
    trust_checkpoint: bool = False,
) -> dict[str, Any]:
    """Write one fold of a trained model as ONNX, and beside it a JSON file of what it is; returns the latter.

    The file is checked against torch before it gets its name: on slices of the dataset where its preprocessed cases
    are here, on random images otherwise.

    Raises:
        UserError: no readable trained 2D model, an output that can't be written, or logits that differ from torch's.
    """
    model, output = Path(model), Path(output)
    require_onnx()
    if output.suffix != ".onnx":
        raise UserError(f"{output} does not end in .onnx: name the file to write with -o model.onnx")
    for path in (output, *beside(output, ".json")):
        check_writable(path)
    trained = load_fold(model, fold, checkpoint, trust_checkpoint=trust_checkpoint)
    images = real_slices(trained.preprocessed_folder, patch_size=trained.patch_size)
    checked_on = "random images" if images is None else f"{len(images)} slices of the preprocessed dataset"
    if images is None:
        shape = (CHECKED_CASES, trained.in_channels, *trained.patch_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    height, width = trained.patch_size
    serialised = to_onnx(trained.network, in_channels=trained.in_channels, image_size=(height, width))
    facts = {
        "trainer": trained.trainer_name,
        "configuration": trained.configuration_name,
        "fold": fold,
        "checkpoint": checkpoint,
        "input": ["batch", trained.in_channels, *trained.patch_size],
        **compare(trained.network, serialised, images),
        "checked_on": checked_on,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    write_whole(output, lambda target: target.write_bytes(serialised))
    write_json(output.with_suffix(".json"), facts)
    return facts
