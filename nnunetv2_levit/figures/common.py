"""What all figures have in common: their size and layout, saving, legends, the colours of structures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

DOTS_PER_INCH = 110


def new_figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches and its axes (rows, columns), laid out without overlaps."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def save(drawn: Figure, target: Path) -> None:
    drawn.savefig(target, dpi=DOTS_PER_INCH, format="png")


def legend_below(drawn: Figure, handles: Sequence[Patch | Line2D]) -> None:
    drawn.legend(handles=handles, loc="outside lower center", ncol=min(8, len(handles)), fontsize=8, frameon=False)


def structure_colours(count: int) -> list[tuple[float, float, float, float]]:
    """The colours of ``count`` structures, in the order of their labels; they repeat after twenty."""
    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(index % palette.N) for index in range(count)]
