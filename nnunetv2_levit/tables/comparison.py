"""Tables of paired differences, and of measured rows beside the papers' printed ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import Markup, csv_table, markdown_table, markdown_text
from nnunetv2_levit.tables.common import HIGHER_IS_BETTER, PERCENTAGES, interval, metric_heading, number, p_value


def comparison_table(result: Mapping[str, Any]) -> str:
    """All differences of a comparison, one row each."""
    rows = []
    for row in result["comparisons"]:
        metric, percent = row["metric"], row["metric"] in PERCENTAGES
        direction = "↑" if HIGHER_IS_BETTER[metric] else "↓"
        patients, missing = str(row["patients"]), len(row["cases_without_a_pair"])
        if missing:
            patients += f" ({missing} {'case' if missing == 1 else 'cases'} without a value in both)"
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
            f"Models: {models}. Differences are model minus {reference}, one value a patient (the mean of its cases in "
            f"which both models have one). Interval: {result['interval']}. p: {result['test']}; a dash where fewer "
            "than six patients make a test pointless.",
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
        rows.append([*cells, " ".join(row["patients_without_a_pair"]), " ".join(row["cases_without_a_pair"])])
    unpaired = ["patients_without_a_pair", "cases_without_a_pair"]
    return csv_table([*before, "ci95_low", "ci95_high", *after, *unpaired], rows)


def papers_markdown(content: Mapping[str, Any]) -> str:
    """One table of measured and printed rows; a row that is not comparable with a paper is marked and says why."""
    notes: list[str] = []
    rows = []
    for row in [*content["measured"], *content["printed"]]:
        facts = [row["source"], row["method"], row["split"], row["protocol"]]
        values = [number(row["values"].get(column)) for column in content["columns"]]
        rows.append([*facts, *values, _comparable(row["comparable"], notes)])
    head = ["source", "method", "split", "protocol", "mean DSC (%)", "mean IoU (%)", "HD95"]
    head += [f"{structure} DSC (%)" for structure in content["structures"]]
    head += [f"{name} (%)" for name in content["test_sets"]]
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
