"""Figures of what attention does: maps over the image, gates, distances by layer, and what knock-outs cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from nnunetv2_levit.figures.common import legend_below, new_figure, save, structure_colours
from nnunetv2_levit.plain_text import figure_label

MAP_COLOURS = "inferno"
OPACITY = 0.6
LEAST_OPACITY, MOST_OPACITY = 0.25, 0.65  # of the smallest and largest values, so that the image shows
OUTSIDE_COLOUR = "#00e5ff"  # of queries that stand for no structure
COLUMNS = 6  # of maps side by side, about
TRAINED = "#4b2e83"  # no colour of a structure
KNOCK_OUT_COLOURS = {"attention": "C0", "block": "C3"}
KNOCK_OUT_NAMES = {"attention": "attention replaced by the identity", "block": "whole block skipped"}


@dataclass(frozen=True)
class Backdrop:
    """What maps are drawn over.

    Attributes:
        image: (h, w), one channel of the network's input.
        masks: structures (h, w) whose outlines are drawn.
        colours: of structures, by name, in which they and their queries are drawn.
        aspect: spacing along h over that along w.
    """

    image: np.ndarray
    masks: Mapping[str, np.ndarray]
    colours: Mapping[str, Any]
    aspect: float


@dataclass(frozen=True)
class Map:
    """Values at the tokens' places.

    Attributes:
        values: (rows, columns); NaN where there is nothing to show.
        token_px: extent of a token in pixels; None for values of the image's own size.
        query: corner (row, column) in pixels and extent in pixels of the token that asks, if one does.
        structure: that is asked about, whose outline and colour are used.
        note: beside the title.
    """

    values: np.ndarray
    token_px: float | None = None
    query: tuple[float, float, float] | None = None
    structure: str | None = None
    note: str = ""


def colours_of(structures: Sequence[str]) -> dict[str, Any]:
    """A colour for each structure, in their order."""
    return dict(zip(structures, structure_colours(len(structures)), strict=True))


def _show_image(axis: Axes, backdrop: Backdrop) -> None:
    darkest, brightest = np.percentile(backdrop.image, (1, 99.5))
    axis.imshow(backdrop.image, cmap="gray", vmin=darkest, vmax=brightest, aspect=backdrop.aspect)
    axis.set(xticks=[], yticks=[])


def _outline(axis: Axes, mask: np.ndarray, colour: Any) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9)


def _show_map(axis: Axes, shown: Map, backdrop: Backdrop) -> None:
    height, width = backdrop.image.shape
    rows, columns = shown.values.shape
    pixels = shown.token_px or height / rows
    across = shown.token_px or width / columns
    values = np.ma.masked_invalid(shown.values)
    low = min(0.0, float(values.min())) if values.count() else 0.0
    span = float(values.max()) - low if values.count() else 0.0
    strength = np.nan_to_num((shown.values - low) / span) if span > 0 else np.zeros(shown.values.shape)
    axis.imshow(
        values,
        cmap=MAP_COLOURS,
        alpha=LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * strength,
        interpolation="nearest",
        vmin=low,
        aspect=backdrop.aspect,
        extent=(-0.5, columns * across - 0.5, rows * pixels - 0.5, -0.5),
    )
    colour = backdrop.colours.get(shown.structure or "", OUTSIDE_COLOUR)
    for name, mask in backdrop.masks.items():
        if shown.structure in (None, name):
            _outline(axis, mask, backdrop.colours[name])
    if shown.query is not None:
        row, column, side = shown.query
        for edge, thickness in (("white", 2.6), (colour, 1.4)):
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=edge, linewidth=thickness))
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_maps(
    rows: Sequence[tuple[str, Sequence[Map]]],
    *,
    headings: Sequence[str],
    backdrop: Backdrop,
    scale: str,
    target: Path,
    structures: Sequence[str | None] | None = None,
) -> None:
    """A grid of maps over the image: a row for each of ``rows`` (title and maps), a column for each heading.

    Many rows are continued in further blocks of columns. Each map has its own scale, from 0 (or its smallest value, if
    that is below) to its largest; ``scale`` says what the colours mean.
    """
    blocks = max(1, min(-(-len(rows) // 4), COLUMNS // max(1, len(headings))))
    lines = -(-len(rows) // blocks)
    columns = len(headings) * blocks
    height, width = backdrop.image.shape
    tall = 1.9 * height * backdrop.aspect / width
    figure, axes = new_figure(lines, columns, width=2.0 * columns + 0.5, height=(tall + 0.32) * lines + 0.9)
    for axis in axes.flat:
        axis.axis("off")
    for index, (title, maps) in enumerate(rows):
        block, line = divmod(index, lines)
        for column, (heading, shown) in enumerate(zip(headings, maps, strict=True)):
            axis = axes[line, block * len(headings) + column]
            axis.axis("on")
            _show_image(axis, backdrop)
            _show_map(axis, shown, backdrop)
            words = [figure_label(title) if column == 0 else "", shown.note]
            axis.set_title("  ".join(filter(None, words)), fontsize=7, loc="left", pad=2)
            if line == 0 or block * lines == index:
                axis.annotate(
                    figure_label(heading), (0.5, 1), xytext=(0, 12), xycoords="axes fraction",
                    textcoords="offset points", ha="center", fontsize=9,
                    color=backdrop.colours.get(shown.structure or "", "black"), weight="bold",
                )  # fmt: skip
    colours = ScalarMappable(norm=Normalize(0, 1), cmap=MAP_COLOURS)
    bar = figure.colorbar(colours, ax=axes, location="bottom", shrink=0.4, aspect=40, pad=0.01, ticks=[0, 1])
    bar.ax.set_xticklabels(["0 or smallest", "largest of the map"], fontsize=7)
    bar.set_label(scale, fontsize=8)
    save(figure, target)


def draw_gates(
    maps: Sequence[tuple[str, np.ndarray]],
    channels: Sequence[tuple[str, np.ndarray]],
    *,
    backdrop: Backdrop,
    target: Path,
) -> None:
    """Spatial gates as maps over the image, from 0 to 1, and channel gates as their sorted values."""
    kinds = [kind for kind in (maps, channels) if kind]
    columns = max(map(len, kinds))
    figure, axes = new_figure(len(kinds), columns, width=2.9 * columns, height=3.0 * len(kinds))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, values) in zip(axes[0], maps, strict=False):
        axis.axis("on")
        _show_image(axis, backdrop)
        height, width = backdrop.image.shape
        drawn = axis.imshow(values, cmap=MAP_COLOURS, alpha=OPACITY, vmin=0, vmax=1, interpolation="nearest",
                            extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect=backdrop.aspect)  # fmt: skip
        for name, mask in backdrop.masks.items():
            _outline(axis, mask, backdrop.colours[name])
        axis.set_title(figure_label(title), fontsize=7)
        figure.colorbar(drawn, ax=axis, shrink=0.7)
    for axis, (title, values) in zip(axes[-1], channels, strict=False):
        axis.axis("on")
        axis.plot(np.sort(values)[::-1])
        axis.set(ylim=(0, 1), xlabel="channels, sorted", ylabel="gate")
        axis.set_title(figure_label(title), fontsize=7)
        axis.grid(alpha=0.3)
    save(figure, target)


def _layer_axis(axis: Axes, titles: Sequence[str]) -> None:
    axis.set_xticks(range(len(titles)), [figure_label(title) for title in titles], rotation=90, fontsize=7)
    axis.grid(alpha=0.3)


def _mean(value: Mapping[str, Any] | None) -> float:
    return nan if value is None else value["mean"]


def draw_layer_numbers(
    layers: Sequence[Mapping[str, Any]], *, structures: Sequence[str], colours: Mapping[str, Any], target: Path
) -> None:
    """Distance, entropy, outside shares and norms by layer (as `analysis.distances.layer_numbers` gives them).

    Dots are heads, lines their means; dashed is uniform attention, dotted the untrained network. ``colours`` are those
    of all structures, as in the other pictures.
    """
    titles = [layer["layer"] for layer in layers]
    with_norms = any("branch_norms" in layer for layer in layers)
    panels = [("attention distance (mm)", "distance_mm"), ("entropy (nats)", "entropy")]
    count = len(panels) + bool(structures) + with_norms
    columns = 2 if count == 4 else count
    lines = count // columns
    width = max(4.2, 0.24 * len(titles) + 1.4)
    figure, axes = new_figure(lines, columns, width=width * columns, height=4.2 * lines + 0.4)
    axes = axes.reshape(1, -1)
    places = np.arange(len(titles))
    for axis, (label, key) in zip(axes[0], panels, strict=False):
        for place, layer in zip(places, layers, strict=True):
            heads = layer[key]["heads"]
            axis.plot([place] * len(heads), heads, ".", color=TRAINED, alpha=0.3, markersize=4)
        axis.plot(places, [_mean(layer[key]) for layer in layers], "-", color=TRAINED)
        axis.plot(places, [_mean(layer["uniform"][key]) for layer in layers], "--", color="black", linewidth=1)
        axis.plot(places, [_mean(layer["untrained"][key]) for layer in layers], ":", color="C3")
        axis.set(ylabel=label)
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
        _layer_axis(axis, titles)
    if structures:
        axis = axes[0, len(panels)]
        for name in structures:
            for owner, style in ((None, "-"), ("uniform", "--"), ("untrained", ":")):
                values = [
                    100 * _mean((layer[owner] if owner else layer)["outside_share"].get(name)) for layer in layers
                ]
                axis.plot(places, values, style, color=colours[name], linewidth=1.6 if owner is None else 0.9)
        axis.set(ylabel="attention that leaves the structure (%)", ylim=(0, 101))
        _layer_axis(axis, titles)
    if with_norms:
        axis = axes[0, -1]
        ratios = [(layer.get("branch_norms") or {}).get("attention_over_convolution") for layer in layers]
        untrained = [(layer.get("untrained_branch_norms") or {}).get("attention_over_convolution") for layer in layers]
        axis.plot(places, [nan if value is None else value for value in ratios], ".-", color=TRAINED)
        axis.plot(places, [nan if value is None else value for value in untrained], ":", color="C3")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(ylabel="norm of attention / norm of convolution")
        axis.set_ylim(bottom=0)
        _layer_axis(axis, titles)
    handles = [
        Line2D([], [], color=TRAINED, label="trained: mean of the heads"),
        Line2D([], [], color=TRAINED, marker=".", linestyle="", alpha=0.5, label="a head"),
        Line2D([], [], color="black", linestyle="--", linewidth=1, label="uniform attention"),
        Line2D([], [], color="C3", linestyle=":", label="untrained network"),
        *(Line2D([], [], color=colours[name], label=figure_label(name)) for name in structures),
    ]
    legend_below(figure, handles)
    save(figure, target)


def _with_intervals(
    axis: Axes, rows: Sequence[Mapping[str, Any]], metric: str, places: np.ndarray, style: dict
) -> None:
    factor = 100 if metric == "dice" else 1
    values = np.array([nan if row[metric]["mean"] is None else factor * row[metric]["mean"] for row in rows])
    ends = [row[metric]["ci95"] for row in rows]
    low, high = (np.array([nan if e is None else factor * e[side] for e in ends]) for side in (0, 1))
    axis.errorbar(places, values, yerr=np.clip(np.array([values - low, high - values]), 0, None), **style)


def draw_knock_out(result: Mapping[str, Any], target: Path) -> None:
    """Change of Dice and HD95 by each knock-out (as `analysis.knockout_study` measures them), with intervals."""
    figure, axes = new_figure(2, 2, width=13, height=8)
    unit = result["unit"]
    for row, (metric, label) in enumerate(
        (("dice", "change of mean DSC (points)"), ("hd95", f"change of mean HD95 ({unit})"))
    ):
        for column, series in enumerate(("single", "cumulative")):
            axis = axes[row, column]
            axis.axhline(0, color="black", linewidth=0.8)
            titles = list(dict.fromkeys(r["title"] for r in result["knock_outs"] if r["series"] == series))
            for offset, what in ((-0.1, "attention"), (0.1, "block")):
                rows = [r for r in result["knock_outs"] if r["series"] == series and r["what"] == what]
                if series == "single":
                    places = np.array([titles.index(r["title"]) for r in rows], dtype=float) + offset
                else:
                    places = np.array([r["kept"] for r in rows], dtype=float) + 0.5 * offset
                style = {"color": KNOCK_OUT_COLOURS[what], "marker": "o", "markersize": 4, "capsize": 2,
                         "linestyle": "" if series == "single" else "-"}  # fmt: skip
                _with_intervals(axis, rows, metric, places, style)
            if metric == "dice" and series == "cumulative":
                axis.axhline(-100 * result["margin"], color="0.5", linestyle="--", linewidth=0.9)
            axis.grid(alpha=0.3)
            axis.set(ylabel=label)
            if series == "single":
                axis.set_xticks(range(len(titles)), [figure_label(title) for title in titles], rotation=90, fontsize=7)
                axis.set_title("one block at a time", fontsize=9)
            else:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
                axis.invert_xaxis()
                axis.set(xlabel=f"blocks left{' in each stage' if result['several_stages'] else ''}")
                axis.set_title("cumulatively, from the last block", fontsize=9)
    base = result["baseline"]
    before = base["dice"]["mean"]
    dice = "–" if before is None or isnan(before) else f"{100 * before:.1f} %"
    figure.suptitle(f"{figure_label(result['trainer'])}: mean DSC {dice} before, {result['cases']} cases", fontsize=10)
    handles: list[Patch | Line2D] = [
        Line2D([], [], color=colour, marker="o", label=KNOCK_OUT_NAMES[what])
        for what, colour in KNOCK_OUT_COLOURS.items()
    ]
    handles.append(Line2D([], [], color="0.5", linestyle="--", label=f"margin, {100 * result['margin']:g} points"))
    legend_below(figure, handles)
    save(figure, target)
