"""The picture of the README: who does which step of a study.

python docs/figures/pipeline.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Patch

NNUNET, OURS = "#d8dde3", "#bcd7f0"
# step, who does it, what happens
STEPS = (
    ("convert", OURS, "published dataset\nto raw format,\nchecked and split"),
    ("plan", NNUNET, "fingerprint, spacing,\npatch and batch,\npreprocessing"),
    ("train", NNUNET, "augmentation, folds,\nloop, checkpoints"),
    ("predict", NNUNET, "sliding window,\nmirroring, folds,\nresampling"),
    ("evaluate", OURS, "DSC, HD95, NSD …\nwith intervals\nover patients"),
    ("compare", OURS, "patient by patient,\nwith intervals\nand tests"),
)
# what this package adds within nnU-Net's own steps
ADDED = {"train": "network, loss,\nrecipe", "predict": "batches,\nfolded network"}
WIDTH, GAP, HEIGHT = 1.62, 0.3, 1.5


def box(axes: plt.Axes, *, left: float, bottom: float, height: float, colour: str) -> None:
    patch = FancyBboxPatch(
        (left, bottom), WIDTH, height, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="#555555"
    )
    axes.add_patch(patch)


def main() -> None:
    figure, axes = plt.subplots(figsize=(11.5, 3.0))
    for index, (name, colour, text) in enumerate(STEPS):
        left = index * (WIDTH + GAP)
        middle = left + WIDTH / 2
        box(axes, left=left, bottom=0, height=HEIGHT, colour=colour)
        axes.text(middle, HEIGHT - 0.25, name, ha="center", va="center", fontsize=13, weight="bold", family="monospace")
        axes.text(middle, 0.55, text, ha="center", va="center", fontsize=9.5)
        if index:
            axes.annotate(
                "", (left - 0.03, HEIGHT / 2), (left - GAP + 0.03, HEIGHT / 2), arrowprops={"arrowstyle": "->"}
            )
        if name in ADDED:
            box(axes, left=left, bottom=-0.95, height=0.6, colour=OURS)
            axes.text(middle, -0.65, ADDED[name], ha="center", va="center", fontsize=9.5)
            axes.annotate("", (middle, -0.05), (middle, -0.3), arrowprops={"arrowstyle": "->"})
    handles = [Patch(facecolor=NNUNET, edgecolor="#555555"), Patch(facecolor=OURS, edgecolor="#555555")]
    axes.legend(handles, ["nnU-Net v2", "nnunetv2_levit"], loc="lower left", frameon=False, fontsize=11, ncol=1)
    axes.set_xlim(-0.1, len(STEPS) * (WIDTH + GAP) - GAP + 0.1)
    axes.set_ylim(-1.05, HEIGHT + 0.1)
    axes.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
