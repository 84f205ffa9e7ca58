"""What the tables of several topics share: names and units of metrics, and how a number is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import Markup

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


def mean_and_interval(summary: Mapping[str, Any], metric: str) -> str:
    """The mean of a metric over cases, followed by its interval where there is one."""
    percent = metric in PERCENTAGES
    text = number(summary["mean"], percent=percent)
    if summary["ci95"] is not None:
        text += f" {interval(summary['ci95'], percent=percent)}"
    return Markup(text)
