"""Everything that is looked at in one patch: attention, rollout, relevance and gates, as numbers and as maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.analysis.analysed_model import AnalysedModel
from nnunetv2_levit.analysis.case_slices import AnalysedPatch, Query
from nnunetv2_levit.analysis.distances import layer_numbers
from nnunetv2_levit.analysis.gates import GateValues, recorded_gates
from nnunetv2_levit.analysis.recording import LayerAttention, as_array, recorded
from nnunetv2_levit.analysis.relevance import differentiate, relevance_map_of_layer, relevance_of_layers
from nnunetv2_levit.analysis.rollout import attention_rollout, can_be_rolled_out, rows_of_structure
from nnunetv2_levit.analysis.token_grids import TokenGrid
from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock
from nnunetv2_levit.figures import Map

Row = tuple[str, list[Map]]


@dataclass
class PatchAnalysis:
    """What was found in one patch.

    Attributes:
        layers: numbers of each layer (`layer_numbers`).
        maps: rows of maps, a column for each query: the layers' attention averaged over the heads.
        head_maps: by query, a row for each layer and a column for each head; only where asked for.
        flow_maps: rows of rollout and relevance, or of windowed networks each layer's relevance; a column a query.
        gates: of TransFuse.
    """

    patch: AnalysedPatch
    layers: list[dict[str, Any]]
    maps: list[Row]
    head_maps: dict[str, list[Row]] = field(default_factory=dict)
    flow_maps: list[Row] = field(default_factory=list)
    flow_queries: list[Query] = field(default_factory=list)
    gates: list[GateValues] = field(default_factory=list)


def _token_frame(tokens: TokenGrid, group: int, number: int) -> tuple[float, float, float]:
    """Upper left corner and extent, in pixels, of the token that asks."""
    row, column = tokens.query_centres[group, number] - tokens.stride / 2
    return float(row), float(column), float(tokens.stride)


def query_map(layer: LayerAttention, query: Query, *, raw: bool = False, head: int | None = None) -> Map:
    """What one query looks at in one layer, in per cent (or raw scores), one head's or the heads' mean."""
    tokens = layer.tokens
    group, number = tokens.locate(query.place)
    values = as_array(layer.scores if raw else layer.weights)[group, :, number]
    chosen = values.mean(axis=0) if head is None else values[head]
    if tokens.allowed is not None:  # what a mask separates is no neighbour
        chosen = np.where(tokens.allowed[group, number], chosen, np.nan)
    shown = tokens.key_map(chosen, group)
    note = f"{np.nanmin(shown):.1f} to {np.nanmax(shown):.1f}" if raw else f"max {100 * np.nanmax(shown):.1f} %"
    return Map(shown, tokens.stride, _token_frame(tokens, group, number), query.structure, note)


def _rows(layers: Sequence[LayerAttention], queries: Sequence[Query], *, raw: bool) -> list[Row]:
    return [(layer.block.title, [query_map(layer, query, raw=raw) for query in queries]) for layer in layers]


def _head_rows(layers: Sequence[LayerAttention], query: Query, *, raw: bool) -> list[Row]:
    return [
        (layer.block.title, [query_map(layer, query, raw=raw, head=head) for head in range(layer.scores.shape[1])])
        for layer in layers
    ]


def _flow_row(matrix: np.ndarray, layers: Sequence[LayerAttention], query: Query, patch: AnalysedPatch) -> Map:
    """A row of rollout or relevance at the first layer's tokens: of a structure's tokens, or of the query's."""
    first, last = layers[0].tokens, layers[-1].tokens
    group, number = last.locate(query.place)
    row: np.ndarray | None = matrix[number]
    frame: tuple[float, float, float] | None = _token_frame(last, group, number)
    if query.structure is not None:
        row, frame = rows_of_structure(matrix, last.share_in_queries(patch.masks[query.structure])[0]), None
    assert row is not None  # a structure with a query covers some of a token
    shown = first.key_map(row, 0)
    return Map(shown, first.stride, frame, query.structure, f"max {100 * shown.max() / max(shown.sum(), 1e-12):.1f} %")


def _flows(
    model: AnalysedModel,
    blocks: list[TransformerBlock],
    layers: Sequence[LayerAttention],
    patch: AnalysedPatch,
    image: Tensor,
) -> tuple[list[Row], list[Query]]:
    """Rollout and relevance of each query, relevance for queries of structures only."""
    of_structures = [query for query in patch.queries if query.structure is not None]
    queries = of_structures or patch.queries
    differentiated = {
        query.name: differentiate(
            model.network, blocks, image, head=model.head_of(query.structure), mask=patch.masks[query.structure]
        )
        for query in of_structures
        if query.structure is not None
    }
    rows: list[Row] = []
    if can_be_rolled_out(layers):
        matrix = attention_rollout(layers)
        rows.append(("rollout", [_flow_row(matrix, layers, query, patch) for query in queries]))
        if differentiated:
            maps = []
            for query in queries:
                relevance = relevance_of_layers(differentiated[query.name])
                if relevance.shape[0] == relevance.shape[1]:  # what a token is for itself says nothing of attention
                    relevance = relevance - np.eye(len(relevance))
                maps.append(_flow_row(relevance, layers, query, patch))
            rows.append(("relevance", maps))
        return rows, queries
    for number, layer in enumerate(layers):
        maps = []
        for query in of_structures:
            shown = relevance_map_of_layer(differentiated[query.name][number])
            maps.append(Map(shown, layer.tokens.stride, None, query.structure))
        if maps:
            rows.append((layer.block.title, maps))
    return rows, of_structures


def analyse_patch(
    model: AnalysedModel,
    untrained: nn.Module,
    blocks: list[TransformerBlock],
    untrained_blocks: list[TransformerBlock],
    patch: AnalysedPatch,
    *,
    raw: bool = False,
    each_head: bool = False,
) -> PatchAnalysis:
    """Record the network's attention to one patch, and make numbers and maps of it."""
    image = torch.from_numpy(patch.image).to(model.device)
    with recorded_gates(model.network) as gates:
        _, layers = recorded(model.network, blocks, image)
    _, untrained_layers = recorded(untrained, untrained_blocks, image)
    numbers = []
    for layer, other in zip(layers, untrained_layers, strict=True):
        row = layer_numbers(layer, untrained=other, spacing=model.spacing, structures=patch.masks)
        if other.branch_norms and other.branch_norms["convolution"]:
            norms = other.branch_norms
            row["untrained_branch_norms"] = {
                **norms,
                "attention_over_convolution": norms["attention"] / norms["convolution"],
            }
        numbers.append(row)
    result = PatchAnalysis(patch, numbers, _rows(layers, patch.queries, raw=raw), gates=list(gates))
    if each_head:
        result.head_maps = {query.name: _head_rows(layers, query, raw=raw) for query in patch.queries}
    result.flow_maps, result.flow_queries = _flows(model, blocks, layers, patch, image)
    return result
