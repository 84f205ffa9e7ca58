"""Tables of attention: its numbers by layer, knock-outs, and networks with fewer blocks."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import csv_table, markdown_table, markdown_text
from nnunetv2_levit.tables.common import NONE, PERCENTAGES, interval, mean_and_interval, number

OWNERS: tuple[tuple[str, ...], ...] = ((), ("uniform",), ("untrained",))  # whose numbers stand side by side


def attention_markdown(cases: Sequence[Mapping[str, Any]]) -> str:
    """A row a layer, averaged over heads and cases: distance, entropy and outside share, beside uniform attention's and
    the untrained network's."""
    structures = list(dict.fromkeys(name for case in cases for name in case["layers"][0]["outside_share"]))
    with_norms = any("branch_norms" in layer for layer in cases[0]["layers"])
    head = ["layer", "token (px)", "distance (mm)", "uniform", "untrained", "entropy (nats)", "uniform", "untrained"]
    for name in structures:
        head += [f"leaves {name} (%)", "uniform", "untrained"]
    head += ["‖attention‖ / ‖convolution‖"] if with_norms else []
    rows = []
    for layers in zip(*(case["layers"] for case in cases), strict=True):
        cells = [layers[0]["layer"], str(layers[0]["token_px"])]
        for keys, percent in [(("distance_mm",), False), (("entropy",), False)]:
            cells += [number(_layer_mean(layers, *owner, *keys), percent=percent) for owner in OWNERS]
        for name in structures:
            shares = [_layer_mean(layers, *owner, "outside_share", name) for owner in OWNERS]
            cells += [number(share, digits=1, percent=True) for share in shares]
        if with_norms:
            cells.append(number(_layer_mean(layers, "branch_norms", "attention_over_convolution")))
        rows.append(cells)
    return markdown_table(head, rows)


def _layer_mean(layers: Sequence[Mapping[str, Any]], *keys: str) -> float | None:
    """Mean over cases of a number of one layer; None where no case has it."""
    values = []
    for layer in layers:
        found: Any = layer
        for key in keys:
            found = None if found is None else found.get(key)
        if found is not None:
            values.append(found["mean"] if isinstance(found, Mapping) else found)
    return sum(values) / len(values) if values else None


def attention_csv(cases: Sequence[Mapping[str, Any]]) -> str:
    """One line a case, layer and head, and one for the heads' mean ("mean"); raw values."""
    structures = list(dict.fromkeys(name for case in cases for name in case["layers"][0]["outside_share"]))
    measures = ["distance_px", "distance_mm", "entropy"]
    names = [*measures, *(f"outside {name}" for name in structures)]
    head = ["case", "slice", "layer", "head", *names]
    head += [f"{owner} {name}" for owner in ("uniform", "untrained") for name in names]
    rows: list[list[object]] = []

    def values(layer: Mapping[str, Any], place: int | None) -> list[object]:
        found: list[Mapping[str, Any] | None] = [layer[measure] for measure in measures]
        found += [layer["outside_share"].get(name) for name in structures]
        cells: list[object] = []
        for entry in found:
            if entry is None:
                cells.append(None)
            elif place is None or len(entry["heads"]) == 1:
                cells.append(entry["mean"])
            else:
                cells.append(entry["heads"][place])
        return cells

    for case in cases:
        for layer in case["layers"]:
            for place in [None, *range(len(layer["distance_px"]["heads"]))]:
                facts = [case["case"], case["slice"], layer["layer"], "mean" if place is None else place + 1]
                beside = [*values(layer["uniform"], None), *values(layer["untrained"], None)]
                rows.append([*facts, *values(layer, place), *beside])
    return csv_table(head, rows)


def transformer_share_markdown(share: Mapping[str, Any]) -> str:
    """Parameters and multiply-adds of the network, its blocks and their attention."""
    rows = [
        [
            heading,
            *(number(share[what][part] / unit) for part in ("network", "transformer_blocks", "attention")),
            number(share[what]["share_outside_the_transformer"], digits=1, percent=True),
        ]
        for what, heading, unit in (
            ("parameters", "parameters (M)", 1e6),
            ("multiply_adds", "multiply-adds (G)", 1e9),
        )
    ]
    return markdown_table(["", "network", "transformer blocks", "their attention", "outside the blocks (%)"], rows)


KNOCK_OUTS = {"attention": "attention → identity", "block": "block skipped"}


def knock_out_markdown(result: Mapping[str, Any]) -> str:
    """A row a knock-out: the change of DSC and HD95 with its interval."""
    base = result["baseline"]
    rows: list[list[str]] = [
        ["none", NONE, *_change_cells(base, sign=False)],
        *([row["title"], KNOCK_OUTS[row["what"]], *_change_cells(row, sign=True)] for row in result["knock_outs"]),
    ]
    head = ["knocked out", "how", "DSC, or its change (points)", "95 % interval"]
    return markdown_table([*head, f"HD95, or its change ({result['unit']})", "95 % interval"], rows)


def _change_cells(row: Mapping[str, Any], *, sign: bool) -> list[str]:
    cells = []
    for metric in ("dice", "hd95"):
        percent = metric in PERCENTAGES
        cells.append(number(row[metric]["mean"], percent=percent, sign=sign))
        cells.append(interval(row[metric]["ci95"], percent=percent, sign=sign))
    return cells


def knock_out_csv(result: Mapping[str, Any]) -> str:
    """One line a knock-out and metric; raw values."""
    head = ["key", "knocked out", "what", "series", "blocks_left", "metric", "change", "ci95_low", "ci95_high"]
    structures = list(result["baseline"]["dice"]["structures"])
    rows = []
    entries = [{"key": "baseline", "title": "none", "what": None, "series": None, "kept": None, **result["baseline"]}]
    for row in [*entries, *result["knock_outs"]]:
        for metric in ("dice", "hd95"):
            low, high = row[metric]["ci95"] or (None, None)
            facts = [row["key"], row["title"], row["what"], row["series"], row["kept"], metric]
            each = [row[metric]["structures"][name] for name in structures]
            rows.append([*facts, row[metric]["mean"], low, high, *each])
    return csv_table([*head, *structures], rows)


def block_study_markdown(result: Mapping[str, Any]) -> str:
    """The measured networks by their number of blocks, and the attention study's printed Dice of the same network."""
    rows = result["rows"]
    largest = max(rows, key=lambda row: row["parameters"])
    head = ["blocks", "parameters (M)", "change (%)", "DSC without fine-tuning (%)", "DSC fine-tuned (%)", "HD95"]
    lines = [
        [
            str(row["blocks"]),
            number(row["parameters"] / 1e6),
            number(row["parameters"] / largest["parameters"] - 1, digits=0, percent=True, sign=True),
            number(row["dice_without_fine_tuning"], percent=True),
            mean_and_interval(row["dice"], "dice"),
            mean_and_interval(row["hd95"], "hd95"),
        ]
        for row in rows
    ]
    text = (
        f"Measured: {markdown_text(result['trainer'])}, fold {result['fold']}, {result['cases']} validation cases, "
        f"{result['iterations']} iterations of fine-tuning each. Intervals: 95 %, patients resampled. The values "
        f"without fine-tuning are predicted without mirrored copies.\n\n{markdown_table(head, lines)}"
    )
    if not result["printed"]:
        return text
    columns = [column for column in result["printed"][0]["values"] if "parameters" not in column]
    change = next(column for column in result["printed"][0]["values"] if "parameters" in column)
    printed = [
        [row["method"], *(number(row["values"][c], digits=3) for c in columns), number(row["values"][change], digits=0)]
        for row in result["printed"]
    ]
    return (
        f"{text}\nPrinted by the attention study, of other data and a full training each (not comparable in height, "
        f"only in direction):\n\n{markdown_table(['network', *columns, change], printed)}"
    )
