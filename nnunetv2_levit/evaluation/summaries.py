"""What the metrics of all cases come to: means with intervals, what was empty, and a protocol's own figures."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nnunetv2_levit.evaluation.case_metrics import EMPTY_RULES, METRICS
from nnunetv2_levit.evaluation.protocols import Protocol
from nnunetv2_levit.evaluation.statistics import mean_of_structures, summarise


def summaries(cases: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """Summary of each structure and metric, the mean over structures, and what was empty."""
    patients = [entry["patient"] for entry in cases]
    columns = {
        structure: {metric: [entry["metrics"][structure][metric] for entry in cases] for metric in METRICS}
        for structure in structures
    }
    return {
        "summary": {
            structure: {metric: summarise(values, patients) for metric, values in by_metric.items()}
            for structure, by_metric in columns.items()
        },
        "mean": {
            metric: mean_of_structures([columns[structure][metric] for structure in structures], patients)
            for metric in METRICS
        },
        "empty": {
            structure: {
                kind: [entry["case"] for entry in cases if entry["presence"][structure] == kind] for kind in EMPTY_RULES
            }
            for structure in structures
        },
    }


def protocol_summary(protocol: Protocol, cases: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """A protocol's own figures: of each structure the mean over cases, and the mean of these."""
    facts = {key: value for key, value in asdict(protocol).items() if key in ("name", "source", "statement", "columns")}
    per_structure = {
        structure: {
            column: float(np.mean([entry["protocol"][structure][column] for entry in cases]))
            for column in protocol.columns
        }
        for structure in structures
    }
    means = {
        column: float(np.mean([per_structure[structure][column] for structure in structures]))
        for column in protocol.columns
    }
    return {**facts, "percent": sorted(protocol.percent), "structures": per_structure, "mean": means}
