"""Tables of evaluations: one alone, and several models beside one another."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import Markup, csv_table, markdown_table, markdown_text
from nnunetv2_levit.tables.common import (
    MEAN_ROW,
    METRICS,
    NONE,
    PERCENTAGES,
    interval,
    mean_and_interval,
    metric_heading,
    number,
)


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
                *(mean_and_interval(evaluation["mean"][metric], metric) for metric in metrics),
                "–" if size is None else f"{size / 1e6:.1f}",
                "–" if epoch is None else f"{epoch:.1f}",
            ]
        )
    head = ["model", *(f"mean {metric_heading(metric, evaluations[0])}" for metric in metrics)]
    return markdown_table([*head, "parameters (M)", "seconds an epoch"], rows)


def structures_table(evaluations: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """A row a model and structure."""
    rows = [
        [evaluation["name"], structure, *(mean_and_interval(summary[metric], metric) for metric in metrics)]
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
