"""Speed against accuracy, after Fig. 1 of the LeViT-UNet paper: one panel as printed, one as measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_levit.evaluation.paper_rows import papers
from nnunetv2_levit.plain_text import figure_label


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
    from matplotlib.ticker import ScalarFormatter

    figure, axes = plt.subplots(1, len(panels), figsize=(7.2 * len(panels), 5.4), squeeze=False)
    for axis, (title, points) in zip(axes[0], panels, strict=True):
        speeds = [point["images_per_second"] for point in points]
        # in the order of their height, names stand above and below in turn; those at the right end, to the left
        far = max(speeds) / (max(speeds) / min(speeds)) ** 0.1
        for index, point in enumerate(sorted(points, key=lambda point: point["dsc"])):
            ours = "LeViT-UNet" in point["name"] or len(points) < 6
            right = point["images_per_second"] > far
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
                figure_label(point["name"]),
                (point["images_per_second"], point["dsc"]),
                xytext=(-6 if right else 6, -12 if index % 2 else 7),
                textcoords="offset points",
                horizontalalignment="right" if right else "left",
                fontsize=8,
            )
        axis.set(xlabel="images per second", ylabel="mean DSC (%)")
        if max(speeds) > 4 * min(speeds):  # a logarithmic axis with less than two ticks says nothing
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_formatter(ScalarFormatter())
            axis.tick_params(axis="x", which="minor", labelsize=6)
        axis.set_title(figure_label(title), fontsize=9)
        axis.margins(x=0.22, y=0.12)
        axis.grid(alpha=0.3, which="both")
    figure.text(0.01, 0.005, "area of a point: parameters", fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(target, dpi=110)
    plt.close(figure)
