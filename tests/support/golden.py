"""Reference outputs of the networks, recorded once in float64 and kept in ``tests/data/golden``.

No weights are stored. The reference network and ours are given the same ones: each parameter and each buffer is drawn
from a random generator whose seed is the tensor's own name in the reference, so that neither their order nor the other
tensors matter.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"


def recorded(case: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Manifest and outputs of a recorded case.

    The manifest has ``input_shape`` (B, C, H, W), ``num_classes``, ``parameters`` (their count), ``state`` (pairs of
    name and shape, in the order of the reference's state dict), ``outputs`` (their shapes) and ``stride``: of the k-th
    output, ``out{k}`` holds every ``stride``-th row and column.
    """
    manifest = json.loads((FOLDER / f"{case}.json").read_text())
    with np.load(FOLDER / f"{case}.npz") as arrays:
        return manifest, dict(arrays)


def draw_image(shape: list[int]) -> np.ndarray:
    """The input of every case, float64 of this shape (B, C, H, W)."""
    return np.random.default_rng(0).standard_normal(tuple(shape))


def draw_tensor(name: str, shape: list[int]) -> np.ndarray:
    """The parameter or buffer ``name`` of the reference: float64, or int64 for a batch norm's count of batches."""
    kind = name.rpartition(".")[2]
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if kind == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if kind == "running_var":
        return 1 + 0.5 * generator.random(tuple(shape))
    mean, scale = _mean_and_scale(kind, shape)
    values = generator.standard_normal(tuple(shape))
    values *= scale  # in place: a network has up to 137 million of them
    if mean:
        values += mean
    return values


def _mean_and_scale(kind: str, shape: list[int]) -> tuple[float, float]:
    """Of normally distributed values, such that the outputs of deep networks neither vanish nor explode."""
    inputs = math.prod(shape[1:])  # of each output of a linear layer or a convolution
    if kind in ("attention_biases", "relative_position_bias_table"):
        return 0, 1
    if kind in ("position_embeddings", "pos_embed", "cls_token"):
        return 0, 0.5
    if kind == "gamma":  # of a layer scale
        return 0.5, 0.1
    if kind in ("running_mean", "bias"):
        return 0, 0.1
    is_norm = len(shape) < 2
    if is_norm or (kind == "weight" and inputs == 1):  # a convolution from one channel to one scales as a norm does
        return 1, 0.1
    return 0, math.sqrt(1.8 / inputs)
