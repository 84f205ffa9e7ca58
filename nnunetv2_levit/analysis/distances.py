"""How far attention reaches, how spread it is, and how much of it leaves a structure: a number for each layer and head.

Distance: sum over keys of weight times distance between the centres of query and key, averaged over queries ("mean
attention distance" of Dosovitskiy et al. 2021, appendix D.7). Entropy: of each query's weights, in nats, averaged over
queries. Queries in the padding of windows do not count; keys in it do, where they lie, as they take part in the
softmax. Uniform attention and an untrained network have a large distance and entropy as well: compare with both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunetv2_levit.analysis.recording import LayerAttention, as_array
from nnunetv2_levit.analysis.token_grids import TokenGrid


def _mean_over_queries(values: np.ndarray, tokens: TokenGrid) -> np.ndarray:
    """Of (groups, heads, Q) the mean over all queries in the image, (heads,)."""
    return values.transpose(1, 0, 2)[:, tokens.queries_inside].mean(axis=-1)


def attention_distance(
    weights: np.ndarray, tokens: TokenGrid, *, spacing: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Mean attention distance of each head, (heads,), in pixels times ``spacing`` (row, column).

    Args:
        weights: (groups, heads, Q, K), rows summing to 1.
    """
    distances = tokens.distances(spacing)[:, None]
    return _mean_over_queries((weights * distances).sum(axis=-1), tokens)


def attention_entropy(weights: np.ndarray, tokens: TokenGrid) -> np.ndarray:
    """Entropy of a query's weights in nats, averaged over queries, (heads,); ln K where K keys count alike."""
    safe = np.where(weights > 0, weights, 1.0)  # 0 ln 0 = 0
    return _mean_over_queries(-(weights * np.log(safe)).sum(axis=-1), tokens)


def outside_share(weights: np.ndarray, tokens: TokenGrid, mask: np.ndarray) -> np.ndarray | None:
    """Share of attention that leaves the structure of its query, (heads,), from the structure's mask (H, W).

    A token belongs to the structure by the share of its square that the structure covers: queries count by theirs, and
    of a key's weight the rest of its square is outside. None where no query lies in the structure.
    """
    of_queries = tokens.share_in_queries(mask) * tokens.queries_inside
    if not of_queries.any():
        return None
    outside = (weights * (1 - tokens.share_in_keys(mask))[:, None, None]).sum(axis=-1)
    result: np.ndarray = np.einsum("ghq,gq->h", outside, of_queries) / of_queries.sum()
    return result


def _heads(values: np.ndarray | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {"mean": float(values.mean()), "heads": [float(value) for value in values]}


def _measured(
    weights: np.ndarray, tokens: TokenGrid, *, spacing: tuple[float, float], structures: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    return {
        "distance_px": _heads(attention_distance(weights, tokens)),
        "distance_mm": _heads(attention_distance(weights, tokens, spacing=spacing)),
        "entropy": _heads(attention_entropy(weights, tokens)),
        "outside_share": {name: _heads(outside_share(weights, tokens, mask)) for name, mask in structures.items()},
    }


def layer_numbers(
    layer: LayerAttention,
    *,
    untrained: LayerAttention,
    spacing: tuple[float, float],
    structures: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """All numbers of one layer, beside those of uniform attention and of the untrained network, ready for JSON.

    Args:
        untrained: the same layer of a network with random weights, on the same image.
        spacing: of the plan, in mm, (row, column).
        structures: masks (H, W) by name.
    """
    tokens = layer.tokens

    def measured(weights: np.ndarray) -> dict[str, Any]:
        return _measured(weights, tokens, spacing=spacing, structures=structures)

    result = {
        "layer": layer.block.title,
        "name": layer.block.name,
        "token_px": layer.block.stride,
        "grid": list(tokens.grid),
        "queries": int(tokens.queries_inside.sum()),
        "keys_of_a_query": int(tokens.keys.shape[1]),
        **measured(as_array(layer.weights)),
        "uniform": measured(tokens.uniform()),
        "untrained": measured(as_array(untrained.weights)),
    }
    if layer.branch_norms:
        norms = layer.branch_norms
        result["branch_norms"] = {
            **norms,
            "attention_over_convolution": norms["attention"] / norms["convolution"] if norms["convolution"] else None,
        }
    return result
