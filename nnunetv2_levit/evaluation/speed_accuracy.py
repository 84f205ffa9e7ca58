"""Speed against accuracy, after Fig. 1 of the LeViT-UNet paper: one panel as printed, one as measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_levit.evaluation.paper_rows import papers


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


def draw_speed_accuracy(panels: Sequence[tuple[str, Sequence[dict[str, Any]]]], target: Path) -> None:
    """Scatter plots as one PNG; each panel has a title and points as `printed_points` gives them.

    The area of a point grows with the number of parameters. Panels are never mixed: other machine, other data.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(7.2 * len(panels), 5.4), squeeze=False)
    for axis, (title, points) in zip(axes[0], panels, strict=True):
        for index, point in enumerate(points):
            ours = "LeViT-UNet" in point["name"] or len(points) < 6
            axis.scatter(
                point["images_per_second"],
                point["dsc"],
                s=30 + 8 * (point["parameters_m"] or 0),
                color="C3" if ours else "C0",
                alpha=0.6,
                edgecolor="black",
                linewidth=0.6,
            )
            axis.annotate(
                point["name"],
                (point["images_per_second"], point["dsc"]),
                xytext=(6, 7 if index % 2 else -12),
                textcoords="offset points",
                fontsize=8,
            )
        axis.set(xlabel="images per second", ylabel="mean DSC (%)", xscale="log")
        axis.set_title(title, fontsize=9)
        axis.margins(x=0.22, y=0.12)
        axis.grid(alpha=0.3, which="both")
    figure.text(0.01, 0.005, "area of a point: parameters", fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(target, dpi=110)
    plt.close(figure)
