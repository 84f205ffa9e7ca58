"""Evaluations as files: how they are written, whether one read back is whole, and what follows from its cases."""

from pathlib import Path
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import DEFINITIONS, EMPTY_RULES, METRICS
from nnunetv2_levit.evaluation.protocols import PROTOCOLS
from nnunetv2_levit.evaluation.statistics import LEVEL, RESAMPLES
from nnunetv2_levit.evaluation.summaries import protocol_summary, summaries
from nnunetv2_levit.files import read_json, write_json, write_text, written_together
from nnunetv2_levit.tables import evaluation_csv, evaluation_markdown

# metrics that have no value, by the presence of the structure (see EMPTY_RULES)
NO_VALUE = {
    "both": frozenset(),
    "missed": frozenset({"hd95", "hd", "asd"}),
    "spurious": frozenset({"hd95", "hd", "asd", "relative_volume_difference"}),
    "absent": frozenset(METRICS),
}
OVERLAPS = ("dice", "iou", "nsd")


def write_evaluation(result: dict[str, Any], folder: Path) -> None:
    """``evaluation.json`` and, made from it, ``evaluation.md`` and ``evaluation.csv``: all three, or none."""
    with written_together(folder) as partial:
        write_json(partial / "evaluation.json", result)
        write_text(partial / "evaluation.md", evaluation_markdown(result))
        write_text(partial / "evaluation.csv", evaluation_csv(result))


def load_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation from its JSON file or the folder that `evaluate` wrote.

    Raises:
        UserError: there is none, or it is damaged; the sentence names file and place.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    content = read_json(file, what="a result of `nnunetv2_levit evaluate`", schema=schemas.EVALUATION)
    if content["kind"] == schemas.POOLED:
        raise UserError(
            f"{file} is a study's average over seeds: give the seeds' own results, which lie in the study's folder "
            "evaluations (NAME=SEED_0/…,SEED_1/… pools them)"
        )
    check_consistent(content, file)
    return content


def check_consistent(evaluation: dict[str, Any], path: Path) -> None:
    """Check what a schema can't say: that every case has every structure, and the values that its presence allows.

    Raises:
        UserError: naming the file and the case.
    """
    structures = set(evaluation["structures"])
    protocol = evaluation.get("protocol")
    if protocol is not None and protocol["name"] not in PROTOCOLS:
        raise _broken(path, "protocol", f"there is no protocol {protocol['name']!r}")
    seen: set[str] = set()
    for index, entry in enumerate(evaluation["cases"]):
        place = f"cases/{index} ({entry['case']})"
        if entry["case"] in seen:
            raise _broken(path, place, "the case occurs twice")
        seen.add(entry["case"])
        keys = ["metrics", "presence"]
        if protocol is not None:
            keys.append("protocol")
        for key in keys:
            if set(entry.get(key, {})) != structures:
                raise _broken(path, f"{place}/{key}", f"its structures are not {', '.join(sorted(structures))}")
        for structure in evaluation["structures"]:
            if reason := _wrong_values(entry["metrics"][structure], entry["presence"][structure]):
                raise _broken(path, f"{place}/metrics/{structure}", reason)
            if protocol is not None:
                columns = set(PROTOCOLS[protocol["name"]].columns)
                if set(entry["protocol"][structure]) != columns:
                    raise _broken(path, f"{place}/protocol/{structure}", f"its values are not {sorted(columns)}")


def _wrong_values(values: dict[str, float | None], presence: str) -> str | None:
    """Why the metrics of a structure can't be, if they can't."""
    for metric in METRICS:
        if (values[metric] is None) != (metric in NO_VALUE[presence]):
            return f"{metric} is {values[metric]} where the structure's presence is {presence!r}"
    if presence in ("missed", "spurious") and any(values[metric] != 0 for metric in OVERLAPS):
        return f"an overlap is not 0 where the structure's presence is {presence!r}"
    if presence == "both":
        # a metric without a value was refused above
        defined = {metric: value for metric, value in values.items() if value is not None}
        dice, iou = defined["dice"], defined["iou"]
        if abs(iou - dice / (2 - dice)) > 1e-6:
            return f"the IoU {iou} does not belong to the DSC {dice}"
        if max(defined["hd95"], defined["asd"]) > defined["hd"] * (1 + 1e-6):
            return "HD is smaller than HD95 or ASD"
    return None


def _broken(path: Path, place: str, reason: str) -> UserError:
    return UserError(f"{path}: {place}: {reason}; run `nnunetv2_levit evaluate` again")


def with_summaries(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The evaluation with all that follows from its cases computed from them, whatever the file says."""
    cases, structures = evaluation["cases"], list(evaluation["structures"])
    derived: dict[str, Any] = {
        "definitions": DEFINITIONS,
        "empty_rules": EMPTY_RULES,
        "interval": f"{LEVEL:.0f} % percentile bootstrap, {RESAMPLES} resamples of patients with all their cases",
        "patients": len({entry["patient"] for entry in cases}),
        **summaries(cases, structures),
    }
    if "protocol" in evaluation:
        derived["protocol"] = protocol_summary(PROTOCOLS[evaluation["protocol"]["name"]], cases, structures)
    return {**evaluation, **derived}
