"""Gradient-weighted relevance (Chefer, Gur and Wolf, CVPR and ICCV 2021): which tokens a structure's logits rest on.

Of each layer A' = mean over heads of max(0, gradient * weights); the relevance of tokens for tokens starts at the
identity and takes R <- R + A' R with each layer. The gradient is that of the structure's logits, summed over the
structure's pixels. It passes through all other layers of the network, which raw attention knows nothing of. This is
the form without layer-wise relevance propagation (ICCV 2021, eq. 5 and 6).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.analysis.recording import LayerAttention, as_array, recording
from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock


def weighted_by_gradient(weights: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Mean over the heads of max(0, gradient * weights): (..., heads, Q, K) -> (..., Q, K)."""
    return np.maximum(gradient * weights, 0).mean(axis=-3)


def propagate(layers: Iterable[np.ndarray]) -> np.ndarray:
    """Relevance (Q of the last, K of the first) from each layer's `weighted_by_gradient` (Q, K), first layer first.

    A layer that is not square subsamples without a residual: R <- A' R.
    """
    relevance: np.ndarray | None = None
    for weighted in layers:
        if relevance is None:
            relevance = np.eye(weighted.shape[1])
        passed = weighted @ relevance
        relevance = relevance + passed if weighted.shape[0] == weighted.shape[1] else passed
    if relevance is None:
        raise ValueError("there is no layer whose relevance could be followed")
    return relevance


def differentiate(
    network: nn.Module, blocks: list[TransformerBlock], image: Tensor, *, head: int, mask: np.ndarray
) -> list[LayerAttention]:
    """The layers with the gradient of one output channel's logits, summed over ``mask`` (H, W), for an image (C, H, W).

    The network's own gradients are left as they were.
    """
    with torch.enable_grad(), recording(network, blocks, gradients=True) as recorder:
        logits = network(image[None].detach().requires_grad_())
        target = logits[0, head][torch.as_tensor(mask, device=logits.device)].sum()
        layers = recorder.finished()
        kept = [layer.attended for layer in layers if layer.attended is not None]
        gradients = torch.autograd.grad(target, kept, allow_unused=True)
        for tensor, gradient in zip(kept, gradients, strict=True):
            tensor.grad = torch.zeros_like(tensor) if gradient is None else gradient
    return layers


def weighted_layer(layer: LayerAttention) -> np.ndarray:
    """`weighted_by_gradient` of a recorded layer, (groups, Q, K)."""
    return weighted_by_gradient(as_array(layer.weights), as_array(layer.weights_gradient()))


def relevance_of_layers(layers: Sequence[LayerAttention]) -> np.ndarray:
    """Relevance through recorded global layers, (queries of the last layer, keys of the first)."""
    return propagate(weighted_layer(layer)[0] for layer in layers)


def relevance_map_of_layer(layer: LayerAttention) -> np.ndarray:
    """Of one layer alone: what its keys get from all its queries, at their places (rows, columns)."""
    received = weighted_layer(layer).sum(axis=1)
    return layer.tokens.all_keys_map(received)
