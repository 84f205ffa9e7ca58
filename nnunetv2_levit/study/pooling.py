"""One evaluation from those of several seeds: each case's values averaged over the seeds, then summarised as ever."""

from collections.abc import Sequence
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import METRICS, over_seeds
from nnunetv2_levit.evaluation.summaries import summaries

PER_SEED = ("predictions", "protocol", "summary", "mean", "empty", "cases")


def _presence(kinds: Sequence[str]) -> str:
    """``missed`` or ``spurious`` where it is so for any seed; the truth is the same for all."""
    return next((kind for kind in kinds if kind in ("missed", "spurious")), kinds[0])


def pool_seeds(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The evaluation of a model from those of its seeds, on the same cases.

    A protocol's own figures are averaged over the seeds too.

    Raises:
        UserError: the seeds were not evaluated on the same cases.
    """
    first = evaluations[0]
    by_case = [{entry["case"]: entry for entry in evaluation["cases"]} for evaluation in evaluations]
    for other in by_case[1:]:
        if other.keys() != by_case[0].keys():
            case = min(other.keys() ^ by_case[0].keys())
            raise UserError(f"the seeds of {first['name']} were not evaluated on the same cases (such as {case})")
    structures = list(first["structures"])
    cases = []
    for case, entry in by_case[0].items():
        several = [seed[case] for seed in by_case]
        cases.append(
            {key: entry[key] for key in ("case", "fold", "shape", "spacing", "unit", "patient")}
            | {
                "presence": {s: _presence([one["presence"][s] for one in several]) for s in structures},
                "metrics": {
                    s: {
                        metric: over_seeds(metric, [one["metrics"][s][metric] for one in several]) for metric in METRICS
                    }
                    for s in structures
                },
            }
        )
    result = {key: value for key, value in first.items() if key not in PER_SEED}
    result |= {"seeds": len(evaluations), "cases": cases, **summaries(cases, structures)}
    if all("protocol" in evaluation for evaluation in evaluations):
        result["protocol"] = _pooled_protocol([evaluation["protocol"] for evaluation in evaluations])
    return result


def _pooled_protocol(protocols: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = protocols[0]

    def averaged(several: Sequence[dict[str, float]]) -> dict[str, float]:
        return {column: sum(values[column] for values in several) / len(several) for column in first["columns"]}

    return first | {
        "structures": {s: averaged([p["structures"][s] for p in protocols]) for s in first["structures"]},
        "mean": averaged([protocol["mean"] for protocol in protocols]),
    }
