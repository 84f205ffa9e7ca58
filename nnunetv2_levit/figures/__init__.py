"""Every figure of the package: a function each, which takes what was measured and a path, and writes a PNG.

Nothing outside this folder imports matplotlib. Figures are made without pyplot, so that a notebook's own figures and
backend stay as they are. Names from data pass through `plain_text.figure_label` before they are drawn.
"""

from nnunetv2_levit.figures.attention import (
    Backdrop,
    Map,
    colours_of,
    draw_gates,
    draw_knock_out,
    draw_layer_numbers,
    draw_maps,
)
from nnunetv2_levit.figures.common import structure_colours
from nnunetv2_levit.figures.results import (
    ERROR_COLOURS,
    CaseOfModel,
    CaseRow,
    draw_benchmark,
    draw_cases,
    draw_comparison,
    draw_learning_curves,
    draw_overview,
    draw_speed_accuracy,
    draw_training_curves,
)

__all__ = [
    "ERROR_COLOURS",
    "Backdrop",
    "CaseOfModel",
    "CaseRow",
    "Map",
    "colours_of",
    "draw_benchmark",
    "draw_cases",
    "draw_comparison",
    "draw_gates",
    "draw_knock_out",
    "draw_layer_numbers",
    "draw_learning_curves",
    "draw_maps",
    "draw_overview",
    "draw_speed_accuracy",
    "draw_training_curves",
    "structure_colours",
]
