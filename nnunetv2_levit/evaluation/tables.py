"""An evaluation as Markdown and CSV, made from its JSON-able dictionary."""

from pathlib import Path
from typing import Any

from nnunetv2_levit.evaluation.case_metrics import DISTANCES, HEADINGS, METRICS, PERCENTAGES
from nnunetv2_levit.files import write_json, write_text, written_together
from nnunetv2_levit.plain_text import Markup, csv_table, markdown_table, markdown_text

NONE = "–"


def number(value: float | None, *, percent: bool = False, sign: bool = False) -> str:
    """A value with two digits, times 100 where ``percent``; a dash for None."""
    if value is None:
        return NONE
    return f"{100 * value if percent else value:{'+' if sign else ''}.2f}"


def heading(metric: str, unit: str, tolerance: float, dimensions: int) -> str:
    """A metric's column heading with its unit."""
    text = HEADINGS[metric]
    if metric in DISTANCES:
        return f"{text} ({unit})"
    if metric == "nsd":
        return f"NSD at {tolerance:g} {unit} (%)"
    if metric == "volume_difference":
        if dimensions == 3:
            return "volume difference (ml)"
        return f"area difference ({'mm²' if unit == 'mm' else 'px'})"
    if metric == "relative_volume_difference" and dimensions == 2:
        return "area difference (%)"
    return text


def _cell(summary: dict[str, Any], metric: str, cases: int) -> str:
    percent = metric in PERCENTAGES
    if summary["mean"] is None:
        return NONE
    text = number(summary["mean"], percent=percent)
    if summary.get("sd") is not None:
        text += f" ± {number(summary['sd'], percent=percent)}"
    if summary.get("median") is not None:
        text += f", median {number(summary['median'], percent=percent)}"
    if summary["ci95"] is not None:
        low, high = (number(end, percent=percent) for end in summary["ci95"])
        text += f" [{low}, {high}]"
    if "n" in summary and summary["n"] < cases:
        text += f" (n = {summary['n']})"
    return Markup(text)


def evaluation_markdown(result: dict[str, Any]) -> str:
    """Everything of an evaluation but the single cases."""
    cases = len(result["cases"])
    facts = (result["unit"], result["tolerance"], result["dimensions"])
    rows = [
        [structure, *(_cell(result["summary"][structure][metric], metric, cases) for metric in METRICS)]
        for structure in result["structures"]
    ]
    rows.append([Markup("**mean**"), *(_cell(result["mean"][metric], metric, cases) for metric in METRICS)])
    split, interval = markdown_text(result["split"]), markdown_text(result["interval"])
    lines = [
        f"# {markdown_text(result['name'])}",
        "",
        f"{cases} cases of {result['patients']} patients; {split}. Cells: mean ± standard deviation over cases, "
        f"median, [interval: {interval}], and n where not every case has a value. The last row averages the "
        "structures.",
        "",
        markdown_table(["structure", *(heading(metric, *facts) for metric in METRICS)], rows),
        "## Empty structures",
        "",
        _empty_table(result),
    ]
    if "protocol" in result:
        lines += [f"## Protocol {result['protocol']['name']}", "", protocol_table(result)]
    lines += ["## Definitions", ""]
    lines += [f"- {heading(metric, *facts)}: {result['definitions'][metric]}" for metric in METRICS]
    return "\n".join(lines) + "\n"


def _empty_table(result: dict[str, Any]) -> str:
    rows = []
    for structure, kinds in result["empty"].items():
        for kind, names in kinds.items():
            if names:
                rows.append([structure, kind, str(len(names)), ", ".join(names), result["empty_rules"][kind]])
    if not rows:
        return "None: every case has every structure, in the ground truth and in the prediction.\n"
    return markdown_table(["structure", "where", "cases", "which", "rule"], rows)


def protocol_table(result: dict[str, Any]) -> str:
    """The paper's own figures of an evaluation, named as such."""
    protocol = result["protocol"]
    percent = set(protocol["percent"])

    def cells(values: dict[str, float]) -> list[str]:
        return [
            number(values[column], percent=True) if column in percent else f"{values[column]:.3f}"
            for column in protocol["columns"]
        ]

    rows = [[structure, *cells(values)] for structure, values in protocol["structures"].items()]
    rows.append([Markup("**mean**"), *cells(protocol["mean"])])
    head = ["structure", *(f"{text}, protocol {protocol['name']}" for text in protocol["columns"].values())]
    return (
        markdown_table(head, rows)
        + "\nFor comparison with that paper's table only, computed as it does. Rules: "
        + f"{protocol['statement']}. Source: {protocol['source']}.\n"
    )


def evaluation_csv(result: dict[str, Any]) -> str:
    """One line a case and structure, raw values (fractions, not per cent), empty where undefined."""
    columns = list(result.get("protocol", {}).get("columns", ()))
    name = result.get("protocol", {}).get("name")
    head = ["case", "patient", "fold", "structure", "presence", *METRICS, *(f"{name}:{column}" for column in columns)]
    rows = [
        [
            entry["case"],
            entry["patient"],
            entry["fold"],
            structure,
            entry["presence"][structure],
            *(entry["metrics"][structure][metric] for metric in METRICS),
            *(entry["protocol"][structure][column] for column in columns),
        ]
        for entry in result["cases"]
        for structure in result["structures"]
    ]
    return csv_table(head, rows)


def write_evaluation(result: dict[str, Any], folder: Path) -> None:
    """``evaluation.json`` and, made from it, ``evaluation.md`` and ``evaluation.csv``: all three, or none."""
    with written_together(folder) as partial:
        write_json(partial / "evaluation.json", result)
        write_text(partial / "evaluation.md", evaluation_markdown(result))
        write_text(partial / "evaluation.csv", evaluation_csv(result))
