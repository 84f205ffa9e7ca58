"""Speed against accuracy, after Fig. 1 of the LeViT-UNet paper: points as printed, and as measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.paper_rows import papers
from nnunetv2_levit.files import read_json


def printed_points() -> list[dict[str, Any]]:
    """Method, images per second, mean DSC (%) and parameters (M) of LeViT-UNet's Table 2 (Synapse, RTX 3090)."""
    tables = next(paper for paper in papers() if paper["paper"] == "LeViT-UNet")["tables"]
    rows = next(table for table in tables if table["table"] == "2")["rows"]
    return [
        {
            "name": row["method"],
            "images_per_second": row["values"]["FPS"],
            "dsc": row["values"]["DSC"],
            "parameters_m": row["values"]["parameters (M)"],
        }
        for row in rows
    ]


def load_benchmark(path: Path) -> dict[str, Any]:
    """A result of `nnunetv2_levit benchmark` from its JSON.

    Raises:
        UserError: there is none, or it is damaged; the sentence names file and place.
    """
    content = read_json(path, what="a result of `nnunetv2_levit benchmark`", schema=schemas.BENCHMARK)
    for index, row in enumerate(content["rows"]):
        seconds = row["seconds_per_image"]
        absent = [mode for mode in content["modes"] if mode not in seconds]
        without_time = {mode for mode in content["modes"] if seconds.get(mode) is None}
        with_reason = set(row.get("not_measured", without_time))  # older results give no reasons
        if absent or without_time != with_reason:
            raise UserError(
                f"{path}: rows/{index}/seconds_per_image does not have a time, or a reason in not_measured, for each "
                f"mode ({', '.join(content['modes'])}): run `nnunetv2_levit benchmark` again"
            )
    return content


def measured_points(
    evaluations: Sequence[dict[str, Any]], benchmark: dict[str, Any], networks: dict[str, str]
) -> list[dict[str, Any]]:
    """Points of speed and accuracy measured here, for the evaluations that ``networks`` gives a network of.

    The speed is that of the batch at which plain inference (or the first mode measured) was fastest.

    Raises:
        UserError: a network that the benchmark has no row of, or a name that no evaluation has.
    """
    names = [evaluation["name"] for evaluation in evaluations]
    for name in networks:
        if name not in names:
            raise UserError(f"--network names {name!r}, which is none of the results ({', '.join(names)})")
    points = []
    for evaluation in evaluations:
        network = networks.get(evaluation["name"])
        if network is None:
            continue
        mode = "inference" if "inference" in benchmark["modes"] else benchmark["modes"][0]
        rows = [row for row in benchmark["rows"] if row["network"] == network and row["seconds_per_image"][mode]]
        if not rows:
            raise UserError(
                f"the benchmark has no row of {network} in mode {mode}: measure it, or name another network"
            )
        if evaluation["mean"]["dice"]["mean"] is None:
            raise UserError(f"{evaluation['name']} has no mean DSC to set against its speed: leave out its --network")
        row = min(rows, key=lambda row: row["seconds_per_image"][mode])
        points.append(
            {
                "name": evaluation["name"],
                "images_per_second": 1 / row["seconds_per_image"][mode],
                **{key: row[key] for key in ("network", "batch_size", "patch_size")},
                "mode": mode,
                "dsc": 100 * evaluation["mean"]["dice"]["mean"],
                "parameters_m": row["parameters"] / 1e6,
            }
        )
    return points
