"""Attention rollout (Abnar and Zuidema 2020): which input tokens reach a token through all layers.

Each layer's weights, averaged over the heads, are mixed half and half with the identity for the residual and
multiplied: A' = 0.5 A + 0.5 I, rows normalised, R = A'_n ... A'_1. A layer that subsamples (LeViT's) has no residual
and enters as it is. Attention in windows is not rolled out: the convolutions and resamplings between its layers carry
more than it does, so each of its layers is shown alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from nnunetv2_levit.analysis.recording import LayerAttention, as_array


def roll_out(layers: Iterable[np.ndarray]) -> np.ndarray:
    """The rollout (Q of the last, K of the first) of head-averaged weights (Q, K), first layer first.

    A square matrix is taken for a layer with a residual, any other for a subsampling without one.
    """
    result: np.ndarray | None = None
    for weights in layers:
        mixed = weights
        if weights.shape[0] == weights.shape[1]:
            mixed = 0.5 * weights + 0.5 * np.eye(len(weights))
        mixed = mixed / mixed.sum(axis=-1, keepdims=True)
        result = mixed if result is None else mixed @ result
    if result is None:
        raise ValueError("there is no layer to roll out")
    return result


def can_be_rolled_out(layers: Sequence[LayerAttention]) -> bool:
    """Whether all layers attend globally."""
    return bool(layers) and all(layer.block.kind != "windows" for layer in layers)


def attention_rollout(layers: Sequence[LayerAttention]) -> np.ndarray:
    """The rollout of recorded global layers, (queries of the last layer, keys of the first)."""
    return roll_out(as_array(layer.weights)[0].mean(axis=0) for layer in layers)


def rows_of_structure(matrix: np.ndarray, shares: np.ndarray) -> np.ndarray | None:
    """Mean of a matrix's rows (Q, K) over the tokens of a structure, weighted by the ``shares`` (Q,) that it covers."""
    total = shares.sum()
    return None if total == 0 else shares @ matrix / total
