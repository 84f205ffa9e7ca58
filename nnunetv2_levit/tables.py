"""Every table of the package, as Markdown and CSV, made from what was measured (the content of a JSON file).

Markdown tables are for reading: values with two digits, fractions as per cent. CSV tables are for computing: raw
values. Texts from data are escaped by `plain_text`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import Markup, csv_table, markdown_table, markdown_text

NONE = "–"
MEAN_ROW = Markup("**mean**")

# headings of an evaluation's metrics, without the unit of what has one
HEADINGS = {
    "dice": "DSC (%)",
    "iou": "IoU (%)",
    "hd95": "HD95",
    "hd": "HD",
    "asd": "ASD",
    "nsd": "NSD (%)",
    "volume_difference": "volume difference",
    "relative_volume_difference": "volume difference (%)",
}
METRICS = tuple(HEADINGS)
PERCENTAGES = frozenset({"dice", "iou", "nsd", "relative_volume_difference"})
HIGHER_IS_BETTER = {"dice": True, "iou": True, "nsd": True, "hd95": False, "hd": False, "asd": False}
DISTANCES = ("hd95", "hd", "asd")


def number(value: float | None, *, digits: int = 2, percent: bool = False, sign: bool = False) -> str:
    """A value with so many digits after the point, times 100 where ``percent``; a dash for None."""
    if value is None:
        return NONE
    shown = 100 * value if percent else value
    return f"{shown:+.{digits}f}" if sign else f"{shown:.{digits}f}"


def p_value(value: float | None) -> str:
    """The p of a test with three digits; a dash for None, where none was made."""
    if value is None:
        return NONE
    return Markup("< 0.001") if value < 0.001 else number(value, digits=3)


def interval(ends: Sequence[float] | None, *, percent: bool, sign: bool = False) -> str:
    """The two ends of an interval in brackets; a dash for None."""
    if ends is None:
        return NONE
    low, high = (number(end, percent=percent, sign=sign) for end in ends)
    return Markup(f"[{low}, {high}]")


def metric_heading(metric: str, result: Mapping[str, Any]) -> str:
    """The heading of a metric's column, with the unit that an evaluation or comparison gives."""
    unit = result["unit"]
    if metric in DISTANCES:
        return f"{HEADINGS[metric]} ({unit})"
    if metric == "nsd":
        return f"NSD at {result['tolerance']:g} {unit} (%)"
    if metric == "volume_difference":
        if result["dimensions"] == 3:
            return "volume difference (ml)"
        return f"area difference ({'mm²' if unit == 'mm' else 'px'})"
    if metric == "relative_volume_difference" and result["dimensions"] == 2:
        return "area difference (%)"
    return HEADINGS[metric]


def _summary_cell(summary: Mapping[str, Any], metric: str, cases: int) -> str:
    percent = metric in PERCENTAGES
    if summary["mean"] is None:
        return NONE
    text = number(summary["mean"], percent=percent)
    if summary.get("sd") is not None:
        text += f" ± {number(summary['sd'], percent=percent)}"
    if summary.get("median") is not None:
        text += f", median {number(summary['median'], percent=percent)}"
    if summary["ci95"] is not None:
        text += f" {interval(summary['ci95'], percent=percent)}"
    if "n" in summary and summary["n"] < cases:
        text += f" (n = {summary['n']})"
    return Markup(text)


def evaluation_markdown(result: Mapping[str, Any]) -> str:
    """Everything of an evaluation but the single cases."""
    cases = len(result["cases"])
    headings = {metric: metric_heading(metric, result) for metric in METRICS}
    rows = [
        [structure, *(_summary_cell(result["summary"][structure][metric], metric, cases) for metric in METRICS)]
        for structure in result["structures"]
    ]
    rows.append([MEAN_ROW, *(_summary_cell(result["mean"][metric], metric, cases) for metric in METRICS)])
    split, explained = markdown_text(result["split"]), markdown_text(result["interval"])
    lines = [
        f"# {markdown_text(result['name'])}",
        "",
        f"{cases} cases of {result['patients']} patients; {split}. Cells: mean ± standard deviation over cases, "
        f"median, [interval: {explained}], and n where not every case has a value. The last row averages the "
        "structures.",
        "",
        markdown_table(["structure", *headings.values()], rows),
        "## Empty structures",
        "",
        _empty_table(result),
    ]
    if "protocol" in result:
        lines += [f"## Protocol {result['protocol']['name']}", "", protocol_table(result["protocol"])]
    lines += ["## Definitions", ""]
    lines += [f"- {heading}: {result['definitions'][metric]}" for metric, heading in headings.items()]
    return "\n".join(lines) + "\n"


def _empty_table(result: Mapping[str, Any]) -> str:
    rows = [
        [structure, kind, str(len(names)), ", ".join(names), result["empty_rules"][kind]]
        for structure, kinds in result["empty"].items()
        for kind, names in kinds.items()
        if names
    ]
    if not rows:
        return "None: every case has every structure, in the ground truth and in the prediction.\n"
    return markdown_table(["structure", "where", "cases", "which", "rule"], rows)


def protocol_table(protocol: Mapping[str, Any]) -> str:
    """A paper's own figures, named as such."""

    def cells(values: Mapping[str, float]) -> list[str]:
        return [
            number(values[column], percent=True) if column in protocol["percent"] else number(values[column], digits=3)
            for column in protocol["columns"]
        ]

    rows = [[structure, *cells(values)] for structure, values in protocol["structures"].items()]
    rows.append([MEAN_ROW, *cells(protocol["mean"])])
    head = ["structure", *(f"{text}, protocol {protocol['name']}" for text in protocol["columns"].values())]
    return (
        markdown_table(head, rows)
        + "\nFor comparison with that paper's table only, computed as it does. Rules: "
        + f"{protocol['statement']}. Source: {protocol['source']}.\n"
    )


def evaluation_csv(result: Mapping[str, Any]) -> str:
    """One line a case and structure, raw values (fractions, not per cent), empty where undefined."""
    head = ["case", "patient", "fold", "structure", "presence", *METRICS]
    columns: list[str] = []
    if "protocol" in result:
        columns = list(result["protocol"]["columns"])
        head += [f"{result['protocol']['name']}:{column}" for column in columns]
    rows = []
    for entry in result["cases"]:
        for structure in result["structures"]:
            metrics = [entry["metrics"][structure][metric] for metric in METRICS]
            of_protocol = [entry["protocol"][structure][column] for column in columns]
            facts = [entry["case"], entry["patient"], entry["fold"], structure, entry["presence"][structure]]
            rows.append([*facts, *metrics, *of_protocol])
    return csv_table(head, rows)


def comparison_table(result: Mapping[str, Any]) -> str:
    """All differences of a comparison, one row each."""
    rows = []
    for row in result["comparisons"]:
        metric, percent = row["metric"], row["metric"] in PERCENTAGES
        direction = "↑" if HIGHER_IS_BETTER[metric] else "↓"
        patients, missing = str(row["patients"]), len(row["patients_without_a_pair"])
        if missing:
            patients += f" ({missing} without a value in both)"
        rows.append(
            [
                row["model"],
                f"{metric_heading(metric, result)} {direction}",
                row["structure"],
                number(row["reference_mean"], percent=percent),
                number(row["model_mean"], percent=percent),
                number(row["mean"], percent=percent, sign=True),
                interval(row["ci95"], percent=percent, sign=True),
                p_value(row["wilcoxon_p"]),
                p_value(row["holm_p"]),
                patients,
            ]
        )
    head = ["model", "metric", "structure", result["reference"], "model's", "difference", "95 % interval", "p"]
    return markdown_table([*head, "p (Holm)", "patients"], rows)


def comparison_markdown(result: Mapping[str, Any]) -> str:
    """All differences of a comparison, and what its words mean."""
    models = "; ".join(_pooled_model(model) for model in result["models"])
    reference = markdown_text(result["reference"])
    return "\n".join(
        [
            f"# Compared with {reference}",
            "",
            f"Models: {models}. Differences are model minus {reference}, one value a patient (its cases "
            f"averaged). Interval: {result['interval']}. p: {result['test']}; a dash where fewer than six patients "
            "make a test pointless.",
            "",
            comparison_table(result),
        ]
    )


def _pooled_model(model: Mapping[str, Any]) -> str:
    name = markdown_text(model["name"])
    return f"{name} ({model['results']} {model['pooled_as']} pooled)" if model["pooled_as"] else name


def comparison_csv(result: Mapping[str, Any]) -> str:
    """One line a model, metric and structure; raw values."""
    before = ["model", "reference", "metric", "structure", "patients", "reference_mean", "model_mean", "mean", "median"]
    after = ["higher", "lower", "wilcoxon_p", "holm_p"]
    rows = []
    for row in result["comparisons"]:
        low, high = row["ci95"] or (None, None)
        cells = [*(row[key] for key in before), low, high, *(row[key] for key in after)]
        rows.append([*cells, " ".join(row["patients_without_a_pair"])])
    return csv_table([*before, "ci95_low", "ci95_high", *after, "patients_without_a_pair"], rows)


def papers_markdown(content: Mapping[str, Any]) -> str:
    """One table of measured and printed rows; a row that is not comparable with a paper is marked and says why."""
    notes: list[str] = []
    rows = []
    for row in [*content["measured"], *content["printed"]]:
        facts = [row["source"], row["method"], row["split"], row["protocol"]]
        values = [number(row["values"].get(column)) for column in content["columns"]]
        rows.append([*facts, *values, _comparable(row["comparable"], notes)])
    head = ["source", "method", "split", "protocol", "mean DSC (%)", "HD95"]
    head += [f"{structure} DSC (%)" for structure in content["structures"]]
    lines = [
        f"# {markdown_text(content['dataset'])}: measured and printed",
        "",
        "HD95 of measured rows is in the unit of their protocol (mm for ours, voxels for the papers'); that of printed "
        "rows is what the paper calls HD or HD95.",
        "",
        markdown_table([*head, "comparable"], rows),
        *(f"[{index}] {markdown_text(note)}  " for index, note in enumerate(notes, 1)),
        "",
        *(f"- {markdown_text(citation)}" for citation in content["citations"]),
    ]
    return "\n".join(lines) + "\n"


def _comparable(reasons_by_table: Mapping[str, Sequence[str]] | None, notes: list[str]) -> str:
    """The last cell of a row of `papers_markdown`; a note that it refers to is added to ``notes`` where it is new."""
    if reasons_by_table is None:
        return "as printed"
    tables_by_reason: dict[str, list[str]] = {}
    for table, reasons in reasons_by_table.items():
        tables_by_reason.setdefault("; ".join(reasons), []).append(table)
    parts = []
    for reason, tables in tables_by_reason.items():
        if not reason:
            parts.append(markdown_text("comparable with " + ", ".join(tables)))
            continue
        note = f"{reason} ({', '.join(tables)})"
        if note not in notes:
            notes.append(note)
        parts.append(f"**not comparable** [{notes.index(note) + 1}]")
    return Markup(", ".join(parts))


def overview_markdown(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, int]) -> str:
    """The cases of a raw dataset; label volumes in ml, or pixels for pictures."""
    structures = {name: str(value) for name, value in labels.items() if value > 0}
    unit = rows[0]["label_unit"]
    head = ["case", "shape", "spacing (mm)", "intensity 1 / 50 / 99 %"]
    head += [*(f"{name} ({unit})" for name in structures), "outliers"]
    lines = [
        [
            row["case"],
            "×".join(str(side) for side in row["shape"]),
            " × ".join(f"{size:.3g}" for size in row["spacing_mm"]),
            " / ".join(f"{value:.4g}" for value in row["intensity_1_50_99"]),
            *(f"{row['labels'].get(label, 0):.4g}" for label in structures.values()),
            ", ".join(row["outliers"]),
        ]
        for row in rows
    ]
    return markdown_table(head, lines)


def benchmark_markdown(result: Mapping[str, Any]) -> str:
    """Measured costs with the machine above them: milliseconds per image of each mode, and the memory it needs."""
    modes = result["modes"]
    with_memory = [mode for mode in modes if any(mode in row["peak_memory_mib"] for row in result["rows"])]
    head = ["network", "patch", "batch", "parameters (M)", "GMAC per image"]
    head += [f"{mode} (ms per image)" for mode in modes] + [f"memory, {mode} (MiB)" for mode in with_memory]
    rows = []
    for row in result["rows"]:
        height, width = row["patch_size"]
        seconds = [row["seconds_per_image"][mode] for mode in modes]
        milliseconds = [None if value is None else 1e3 * value for value in seconds]
        memory = [row["peak_memory_mib"].get(mode) for mode in with_memory]
        rows.append(
            [
                row["network"],
                f"{height}×{width}",
                str(row["batch_size"]),
                number(row["parameters"] / 1e6),
                number(row["gmac_per_image"]),
                *(number(value) for value in milliseconds),
                *(number(value, digits=0) for value in memory),
            ]
        )
    machine = markdown_text(f"{result['device']}, {result['precision']}, torch {result['torch']}")
    return f"{machine}\n\n{markdown_table(head, rows)}"


def _mean_and_interval(summary: dict[str, Any], metric: str) -> str:
    percent = metric in PERCENTAGES
    text = number(summary["mean"], percent=percent)
    if summary["ci95"] is not None:
        text += f" {interval(summary['ci95'], percent=percent)}"
    return Markup(text)


def models_table(
    evaluations: Sequence[dict[str, Any]],
    metrics: Sequence[str],
    parameters: dict[str, int | None],
    seconds: dict[str, float | None],
) -> str:
    """A row a model: the mean over structures with its interval, parameters and seconds an epoch."""
    rows = []
    for evaluation in evaluations:
        name = evaluation["name"]
        size, epoch = parameters.get(name), seconds.get(name)
        rows.append(
            [
                name,
                *(_mean_and_interval(evaluation["mean"][metric], metric) for metric in metrics),
                "–" if size is None else f"{size / 1e6:.1f}",
                "–" if epoch is None else f"{epoch:.1f}",
            ]
        )
    head = ["model", *(f"mean {metric_heading(metric, evaluations[0])}" for metric in metrics)]
    return markdown_table([*head, "parameters (M)", "seconds an epoch"], rows)


def structures_table(evaluations: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """A row a model and structure."""
    rows = [
        [evaluation["name"], structure, *(_mean_and_interval(summary[metric], metric) for metric in metrics)]
        for evaluation in evaluations
        for structure, summary in evaluation["summary"].items()
    ]
    return markdown_table(["model", "structure", *(metric_heading(metric, evaluations[0]) for metric in metrics)], rows)


def empty_table(evaluations: Sequence[dict[str, Any]]) -> str:
    """Cases in which a structure is empty in the truth or the prediction; empty text where there is none."""
    rows = [
        [evaluation["name"], structure, kind, str(len(names)), ", ".join(names)]
        for evaluation in evaluations
        for structure, kinds in evaluation["empty"].items()
        for kind, names in kinds.items()
        if names
    ]
    return markdown_table(["model", "structure", "where", "cases", "which"], rows) if rows else ""


# attention -----------------------------------------------------------------------------------------------------------


OWNERS: tuple[tuple[str, ...], ...] = ((), ("uniform",), ("untrained",))  # whose numbers stand side by side


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
            _mean_and_interval(row["dice"], "dice"),
            _mean_and_interval(row["hd95"], "hd95"),
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
