"""Paired distributions of several models: one panel a metric, one group a structure, one line a patient."""

from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_levit.evaluation.case_metrics import PERCENTAGES
from nnunetv2_levit.evaluation.tables import heading
from nnunetv2_levit.plain_text import figure_label

PANELS = ("dice", "hd95")


def draw_comparison(result: dict[str, Any], target: Path) -> None:
    """Boxes of the patients' values with lines joining each patient's, for DSC and HD95, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [model["name"] for model in result["models"]]
    structures = list(result["patient_values"][names[0]]["dice"])
    width = max(7.0, 0.55 * len(names) * len(structures) + 2)
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(width, 4.0 * len(PANELS)))
    for axis, metric in zip(axes, PANELS, strict=True):
        factor = 100.0 if metric in PERCENTAGES else 1.0
        for group, structure in enumerate(structures):
            start = group * (len(names) + 1)
            values = [result["patient_values"][name][metric][structure] for name in names]
            shared = sorted(set.intersection(*(set(v) for v in values)))
            columns = factor * np.array([[v[patient] for patient in shared] for v in values]).reshape(len(names), -1)
            places = start + np.arange(len(names))
            axis.plot(places, columns, color="0.6", linewidth=0.6, alpha=0.6, zorder=1)
            for index, column in enumerate(columns):
                if not column.size:
                    continue
                box = axis.boxplot(
                    column, positions=[places[index]], widths=0.6, showfliers=False, patch_artist=True, zorder=2
                )
                box["boxes"][0].set(facecolor=f"C{index}", alpha=0.45)
                box["medians"][0].set(color="black")
                axis.scatter(np.full(column.size, places[index]), column, s=7, color=f"C{index}", zorder=3)
        axis.set_xticks(
            [g * (len(names) + 1) + (len(names) - 1) / 2 for g in range(len(structures))], map(figure_label, structures)
        )
        axis.set_ylabel(heading(metric, result["unit"], result["tolerance"], result["dimensions"]))
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=f"C{i}", alpha=0.45, label=figure_label(name))
        for i, name in enumerate(names)
    ]
    axes[0].legend(handles=handles, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.01), ncol=min(3, len(names)))
    axes[-1].set_xlabel("a point is a patient; grey lines join the same patient's values")
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)
