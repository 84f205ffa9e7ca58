"""The papers' result tables as data, and measured rows beside them with what keeps them from being comparable."""

import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.files import read_json

# printed headings that mean the same structure or metric, compared without case, blanks and punctuation
SYNONYMS = {
    "kidneyl": "leftkidney",
    "kidneyleft": "leftkidney",
    "kidneyr": "rightkidney",
    "kidneyright": "rightkidney",
    "myocardium": "myo",
    "avedsc": "dsc",
    "dice": "dsc",
    "mean": "dsc",
    "hd": "hd95",
    "jaccard": "iou",
    "miou": "iou",
}
SHARES = ("dsc", "iou")  # shown as per cent


def papers() -> list[dict[str, Any]]:
    """Every transcribed paper: its citation and its tables with section, split, protocol and rows as printed."""
    with as_file(files("nnunetv2_levit.evaluation") / "paper_tables") as folder:
        return [
            read_json(path, what="a transcribed paper", schema=schemas.PAPER) for path in sorted(folder.glob("*.json"))
        ]


def canonical(text: str) -> str:
    """A column or structure name in the form in which two papers' spellings agree."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    return SYNONYMS.get(plain, plain)


def tables_of(dataset: str) -> list[dict[str, Any]]:
    """All transcribed tables about a dataset (by its name without case and punctuation), each with its ``paper``."""
    wanted = canonical(dataset)
    return [
        {**table, "paper": paper["paper"], "citation": paper["citation"]}
        for paper in papers()
        for table in paper["tables"]
        if wanted and wanted in canonical(table["dataset"])
    ]


def value_names(structures: Sequence[str]) -> list[str]:
    """The names of a row's values: mean DSC, IoU and HD95, and the DSC of each structure."""
    return ["dsc", "iou", "hd95", *(canonical(structure) for structure in structures)]


def set_names(tables: Sequence[dict[str, Any]]) -> list[str]:
    """What tables print for each of several test sets, such as ``Kvasir mDice``: a test set and a protocol's value."""
    return list(dict.fromkeys(name for table in tables for name in table.get("test_sets", {}).values()))


def printed_rows(table: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """A table's rows with the columns that match a measured one (`value_names`, `set_names`), shares in per cent."""
    columns = {canonical(column): column for column in table["columns"]}
    columns |= {name: column for column, name in table.get("test_sets", {}).items()}
    factor = 100 if table.get("unit") == "fraction" else 1

    def value(row: dict[str, Any], name: str) -> float | None:
        printed = row["values"].get(columns.get(name, ""))
        return factor * printed if name != "hd95" and isinstance(printed, int | float) else printed

    return [
        {
            "source": f"{table['paper']}, table {table['table']}",
            "method": row["method"] + (f", {row['values']['Size']}²" if "Size" in row["values"] else ""),
            "split": table["split"],
            "protocol": table["protocol"] or "not stated",
            "comparable": None,
            "values": {name: value(row, name) for name in names},
        }
        for row in table["rows"]
    ]


def why_not_comparable(evaluation: dict[str, Any], table: dict[str, Any], protocol: str | None) -> list[str]:
    """Reasons for which a measured row does not stand beside a table's; none means that it does."""
    reasons = []
    listed = table.get("split_cases")
    cases = {entry["case"] for entry in evaluation["cases"]}
    if listed is None:
        reasons.append("another split: the paper does not list its test cases")
    elif set(listed) != cases:
        reasons.append(f"another split: {len(set(listed) & cases)} of the paper's {len(listed)} test cases are in it")
    named = {canonical(name) for name in table.get("structures", table["columns"])}
    others = [name for name in evaluation["structures"] if canonical(name) not in named]
    if others and (len(others) < len(evaluation["structures"]) or "structures" in table):
        reasons.append(f"other structures: the paper's means are without {', '.join(others)}")
    same = {"levit-unet", "transunet"}  # the same computation under two papers' names
    if protocol is None or (protocol != table["protocol"] and not {protocol, table["protocol"]} <= same):
        reasons.append(f"another protocol: the paper's is {table['protocol'] or 'not stated'}")
    return reasons


def measured_rows(evaluation: dict[str, Any], tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one evaluation: our metrics, and a paper's protocol where it was computed."""
    structures = list(evaluation["structures"])

    def row(values: dict[str, float | None], protocol: str | None, text: str) -> dict[str, Any]:
        return {
            "source": "measured",
            "method": evaluation["name"],
            "split": f"{evaluation['split']}; {len(evaluation['cases'])} cases",
            "protocol": text,
            "comparable": {
                f"{table['paper']}, table {table['table']}": why_not_comparable(evaluation, table, protocol)
                for table in tables
            },
            "values": values,
        }

    def percent(value: float | None) -> float | None:
        return None if value is None else 100 * value

    ours = {"dsc": percent(evaluation["mean"]["dice"]["mean"]), "iou": percent(evaluation["mean"]["iou"]["mean"])}
    ours["hd95"] = evaluation["mean"]["hd95"]["mean"]
    for structure in structures:
        ours[canonical(structure)] = percent(evaluation["summary"][structure]["dice"]["mean"])
    rows = [row(ours, None, f"ours, in {evaluation['unit']}")]
    protocol = evaluation.get("protocol")
    if protocol is not None:
        means = {canonical(column): value for column, value in protocol["mean"].items()}
        values = {name: percent(means.get(name)) for name in SHARES} | {"hd95": means.get("hd95")}
        for structure in structures:
            values[canonical(structure)] = percent(protocol["structures"][structure].get("dice"))
        for name in set_names(tables):
            values[name] = percent(_mean_of_set(evaluation, name))
        rows.append(row(values, protocol["name"], protocol["name"]))
    return rows


def _mean_of_set(evaluation: dict[str, Any], name: str) -> float | None:
    """A protocol's value such as ``Kvasir mDice``, over the cases that the converter named after the test set."""
    test_set, metric = name.rsplit(" ", 1)
    values = [
        of_structure[metric.lower()]
        for entry in evaluation["cases"]
        if entry["case"].startswith(f"{test_set}_")
        for of_structure in entry["protocol"].values()
        if of_structure.get(metric.lower()) is not None
    ]
    return sum(values) / len(values) if values else None


def beside_the_papers(evaluations: Sequence[dict[str, Any]], dataset: str) -> dict[str, Any]:
    """Measured rows and every printed row about ``dataset``, ready for JSON and `tables.papers_markdown`."""
    structures = list(evaluations[0]["structures"])
    tables = [
        table
        for table in tables_of(dataset)
        if {canonical(c) for c in table["columns"]} & {*SHARES, *(canonical(s) for s in structures)}
        or "test_sets" in table
    ]
    sets = set_names(tables)
    names = [*value_names(structures), *sets]
    return {
        "dataset": dataset,
        "structures": structures,
        "test_sets": sets,
        "columns": names,
        "measured": [row for evaluation in evaluations for row in measured_rows(evaluation, tables)],
        "printed": [row for table in tables for row in printed_rows(table, names)],
        "citations": sorted({table["citation"] for table in tables}),
    }
