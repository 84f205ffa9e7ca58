"""Figures of data, results and costs: cases, comparisons, training curves, overviews, benchmarks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from matplotlib.transforms import Bbox

from nnunetv2_levit.figures.common import legend_below, new_figure, save, structure_colours
from nnunetv2_levit.plain_text import figure_label

OVERVIEW_COLUMNS = 10
ERROR_COLOURS = {"missed": "#00e5ff", "spurious": "#ff1744", "wrong structure": "#ffea00"}
NAME_OFFSETS = tuple((x, y) for y in (6, -12, 17, -23, 28, -34) for x in (6, -6))  # in points
LINE_STYLES = ("o-", "s--", "^:")


@dataclass(frozen=True)
class CaseOfModel:
    """What one model predicted in the slice of a `CaseRow`.

    Attributes:
        prediction: labels (H, W).
        errors: (H, W), 0 where right, else 1 to 3 in the order of `ERROR_COLOURS`.
        dice: mean DSC over the structures of the whole case, a fraction; None where no structure has one.
    """

    name: str
    prediction: np.ndarray
    errors: np.ndarray
    dice: float | None


@dataclass(frozen=True)
class CaseRow:
    """One row of the panel of cases: an image (H, W) and its true labels (H, W), and each model's.

    Attributes:
        rank: why the case is shown, such as "worst".
        place: which slice it is.
        aspect: spacing along H over that along W.
    """

    rank: str
    case: str
    place: str
    image: np.ndarray
    truth: np.ndarray
    aspect: float
    models: Sequence[CaseOfModel]


def draw_cases(rows: Sequence[CaseRow], *, names: Mapping[int, str], target: Path) -> None:
    """A row a case: the image, the ground truth, and each model's labels and errors; ``names`` are those of labels."""
    values = sorted(names)
    colours = ListedColormap(structure_colours(len(values)))
    error_colours = ListedColormap(list(ERROR_COLOURS.values()))
    columns = 2 + 2 * len(rows[0].models)
    figure, axes = new_figure(len(rows), columns, width=2.5 * columns, height=2.8 * len(rows) + 0.5)

    def show_labels(axis: Axes, labels: np.ndarray, aspect: float) -> None:
        index = np.ma.masked_where(labels == 0, np.searchsorted(values, labels))
        axis.imshow(index, cmap=colours, vmin=-0.5, vmax=len(values) - 0.5, alpha=0.55, aspect=aspect,
                    interpolation="nearest")  # fmt: skip

    def show_errors(axis: Axes, errors: np.ndarray, aspect: float) -> None:
        axis.imshow(np.ma.masked_equal(errors, 0), cmap=error_colours, vmin=0.5, vmax=3.5, alpha=0.85, aspect=aspect,
                    interpolation="nearest")  # fmt: skip

    for row, line in zip(rows, axes, strict=True):
        darkest, brightest = np.percentile(row.image, (1, 99.5))
        for axis in line:
            axis.imshow(row.image, cmap="gray", vmin=darkest, vmax=brightest, aspect=row.aspect)
            axis.set(xticks=[], yticks=[])
        line[0].set_title("image", fontsize=8)
        line[0].set_ylabel(f"{row.rank}: {figure_label(row.case)}\n{row.place}", fontsize=8)
        line[1].set_title("ground truth", fontsize=8)
        show_labels(line[1], row.truth, row.aspect)
        for model, left, right in zip(row.models, line[2::2], line[3::2], strict=True):
            name = figure_label(model.name)
            dice = "–" if model.dice is None else f"{100 * model.dice:.1f} %"
            left.set_title(f"{name}\nDSC {dice}", fontsize=8)
            show_labels(left, model.prediction, row.aspect)
            right.set_title(f"{name}\nerrors", fontsize=8)
            show_errors(right, model.errors, row.aspect)
    handles = [Patch(color=colours(index), label=figure_label(names[value])) for index, value in enumerate(values)]
    handles += [Patch(color=colour, label=name) for name, colour in ERROR_COLOURS.items()]
    legend_below(figure, handles)
    save(figure, target)


def draw_comparison(
    panels: Mapping[str, Mapping[str, np.ndarray]], *, models: Sequence[str], footnote: str, target: Path
) -> None:
    """Boxes of paired values, with lines joining the values of each pair.

    Args:
        panels: by the heading of a metric and by structure, values (models, patients) as they are shown.
    """
    groups = max(len(structures) for structures in panels.values())
    width = max(7.0, 0.55 * len(models) * groups + 2)
    figure, axes = new_figure(len(panels), 1, width=width, height=4.0 * len(panels))
    stride = len(models) + 1  # a gap between two structures
    for axis, (heading, structures) in zip(axes[:, 0], panels.items(), strict=True):
        for group, values in enumerate(structures.values()):
            places = group * stride + np.arange(len(models))
            if not values.size:
                continue
            axis.plot(places, values, color="0.6", linewidth=0.6, alpha=0.6, zorder=1)
            for index, (place, column) in enumerate(zip(places, values, strict=True)):
                axis.boxplot(
                    column, positions=[place], widths=0.6, showfliers=False, patch_artist=True, zorder=2,
                    boxprops={"facecolor": f"C{index}", "alpha": 0.45}, medianprops={"color": "black"},
                )  # fmt: skip
                axis.scatter(np.full(column.size, place), column, s=7, color=f"C{index}", zorder=3)
        middles = [group * stride + (len(models) - 1) / 2 for group in range(len(structures))]
        axis.set_xticks(middles, [figure_label(structure) for structure in structures])
        axis.set_ylabel(heading)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    handles = [Patch(facecolor=f"C{i}", alpha=0.45, label=figure_label(name)) for i, name in enumerate(models)]
    figure.legend(handles=handles, fontsize=8, loc="outside upper left", ncol=min(3, len(models)), frameon=False)
    axes[-1, 0].set_xlabel(footnote)
    save(figure, target)


def draw_speed_accuracy(panels: Sequence[tuple[str, Sequence[dict[str, Any]]]], target: Path) -> None:
    """Scatter plots side by side; each panel has a title and points as `speed_accuracy.printed_points` gives them.

    The area of a point grows with the number of parameters. Panels are never mixed: other machine, other data.
    """
    figure, axes = new_figure(1, len(panels), width=7.2 * len(panels), height=5.4)
    for axis, (title, points) in zip(axes[0], panels, strict=True):
        speeds = [point["images_per_second"] for point in points]
        few = len(points) < 6
        names = []
        for point in points:
            place = (point["images_per_second"], point["dsc"])
            area = 30 + 8 * (point["parameters_m"] or 0)
            colour = "C3" if few or "LeViT-UNet" in point["name"] else "C0"
            axis.scatter(*place, s=area, color=colour, alpha=0.6, edgecolor="black", linewidth=0.6)
            name = figure_label(point["name"])
            names.append(axis.annotate(name, place, xytext=(0, 0), textcoords="offset points", fontsize=8))
        axis.set(xlabel="images per second", ylabel="mean DSC (%)")
        if max(speeds) > 4 * min(speeds):  # a logarithmic axis with less than two ticks says nothing
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_formatter(ScalarFormatter())
            axis.tick_params(axis="x", which="minor", labelsize=6)
        axis.set_title(figure_label(title), fontsize=9)
        axis.margins(x=0.22, y=0.12)
        axis.grid(alpha=0.3, which="both")
        _keep_apart(names, axis=axis, figure=figure)
    figure.supxlabel("area of a point: parameters", fontsize=7, x=0.01, horizontalalignment="left")
    save(figure, target)


def _keep_apart(names: Sequence[Annotation], *, axis: Axes, figure: Figure) -> None:
    """Give each name the first place beside its point that covers no other name or point and lies within the axis."""
    figure.draw_without_rendering()  # extents are known from then on
    centres = axis.transData.transform([name.xy for name in names])
    taken = [Bbox(((x - 4, y - 4), (x + 4, y + 4))) for x, y in centres]
    frame = axis.get_window_extent()
    for name in names:
        for x, y in NAME_OFFSETS:
            name.set(position=(x, y), horizontalalignment="left" if x > 0 else "right")
            extent = name.get_window_extent()
            inside = frame.x0 < extent.x0 and extent.x1 < frame.x1
            if inside and not any(extent.overlaps(other) for other in taken):
                break
        taken.append(name.get_window_extent())


def draw_training_curves(runs: Sequence[dict[str, Any]], *, structures: Sequence[str], target: Path) -> None:
    """Losses and mean pseudo Dice of runs (as `training_curves.read_fold` gives them) over the epochs.

    Where there is one run, its structures are drawn apart; ``structures`` are their names.
    """
    figure, ((left, right),) = new_figure(1, 2, width=12, height=4.5)
    alone = len(runs) == 1
    for index, run in enumerate(runs):
        colour, name = f"C{index}", f"{figure_label(run['run'])}, {figure_label(run['fold'])}"
        epochs = [epoch["epoch"] + 1 for epoch in run["epochs"]]
        train_loss, val_loss = (
            np.array([epoch[loss] for epoch in run["epochs"]], dtype=float) for loss in ("train_loss", "val_loss")
        )
        left.plot(epochs, train_loss, "-", color=colour, label=name)
        left.plot(epochs, val_loss, "--", color=colour)
        width = max(len(epoch["pseudo_dice"]) for epoch in run["epochs"])
        dice = np.array([epoch["pseudo_dice"] or [None] * width for epoch in run["epochs"]], dtype=float)
        means = np.ma.masked_invalid(dice).mean(axis=1) if width else np.full(len(epochs), np.nan)
        right.plot(epochs, means, color=colour, linewidth=2, label="mean" if alone else name)
        if alone:
            for structure, values in enumerate(dice.T):
                label = structures[structure] if structure < len(structures) else f"structure {structure + 1}"
                right.plot(epochs, values, color=f"C{structure + 1}", linewidth=1, label=figure_label(label))
    left.set(xlabel="epoch", ylabel="loss (solid: training, dashed: validation)")
    right.set(xlabel="epoch", ylabel="pseudo Dice on validation patches", ylim=(0, 1))
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    save(figure, target)


Curve = tuple[Sequence[float], Sequence[float]]
"""Times and values."""


def draw_learning_curves(panels: Mapping[str, Mapping[str, Curve]], *, time_label: str, target: Path) -> None:
    """Mean pseudo Dice of trainings over their time: a panel each title, and a curve each name in it."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=6 * columns, height=4.5 * rows)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for index, (name, (times, values)) in enumerate(curves.items()):
            style = ("-", "--", ":")[index // 10 % 3]
            axis.plot(times, values, style, color=f"C{index % 10}", label=figure_label(name))
        axis.set(title=title, xlabel=time_label, ylabel="mean pseudo Dice on validation patches", ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    save(figure, target)


def draw_overview(
    cases: Sequence[tuple[dict[str, Any], np.ndarray, np.ndarray]],
    *,
    structures: Mapping[str, Sequence[int]],
    target: Path,
    ignored: int | None = None,
) -> None:
    """A small picture a case with its labels' outlines; cases with outliers are framed in red.

    Args:
        cases: facts of each case (a row of overview.json), a slice (H, W) or picture (H, W, 3), and its labels (H, W).
        structures: the labels of each structure; a label that is no structure by itself is called by its number.
        ignored: the ignore label, if there is one.
    """
    columns = min(OVERVIEW_COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    figure, axes = new_figure(rows, columns, width=1.6 * columns, height=1.75 * rows + 0.5)
    names = {label: f"label {label}" for labels in structures.values() for label in labels if label > 0}
    names |= {labels[0]: name for name, labels in structures.items() if len(labels) == 1}
    if ignored is not None:
        names[ignored] = "ignored"
    colours = structure_colours(max(names))
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    for axis, (facts, image, mask) in zip(axes.flat, cases, strict=False):
        axis.set(xticks=[], yticks=[])
        if image.ndim == 3:
            axis.imshow(image / max(1.0, image.max()))
        else:
            darkest, brightest = np.percentile(image, (1, 99.5))
            aspect = facts["spacing_mm"][1] / facts["spacing_mm"][2]
            axis.imshow(image, cmap="gray", vmin=darkest, vmax=brightest, aspect=aspect)
        for value in np.unique(mask[mask > 0]).astype(int):
            axis.contour(mask == value, levels=[0.5], colors=[colours[(value - 1) % len(colours)]], linewidths=0.8)
        colour, thickness = ("red", 2.0) if facts["outliers"] else ("black", 0.5)
        axis.set_title(figure_label(facts["case"]), fontsize=5, color=colour, pad=2)
        for spine in axis.spines.values():
            spine.set(color=colour, linewidth=thickness)
    handles = [Line2D([], [], color=colours[label - 1], label=figure_label(name)) for label, name in names.items()]
    legend_below(figure, handles)
    save(figure, target)


def draw_benchmark(result: dict[str, Any], target: Path) -> None:
    """A panel for the speed of each mode and for each measured memory, a line for each network.

    The horizontal axis is the patch's side (at the largest batch), or the batch where one patch was measured.
    """
    rows = result["rows"]
    by_patch = len({tuple(row["patch_size"]) for row in rows}) > 1
    with_memory = dict.fromkeys(mode for row in rows for mode in row["peak_memory_mib"])
    panels = [(mode, "images / s", _speed_in(mode)) for mode in result["modes"]]
    panels += [(f"memory, {mode}", "MiB", _memory_in(mode)) for mode in with_memory]
    figure, axes = new_figure(1, len(panels), width=5.5 * len(panels), height=4.2)
    names = list(dict.fromkeys(row["network"] for row in rows))
    for axis, (title, unit, value) in zip(axes[0], panels, strict=True):
        for index, name in enumerate(names):
            own = [row for row in rows if row["network"] == name]
            if by_patch:
                batch = max(row["batch_size"] for row in own)
                own = [row for row in own if row["batch_size"] == batch]
            x = [(row["patch_size"][0] * row["patch_size"][1]) ** 0.5 if by_patch else row["batch_size"] for row in own]
            style = LINE_STYLES[index // 10 % len(LINE_STYLES)]
            axis.plot(x, [value(row) for row in own], style, label=figure_label(name), color=f"C{index % 10}")
        axis.set(title=title, xlabel="patch side (pixels)" if by_patch else "batch size", ylabel=unit)
        axis.set_xscale("log", base=2)
        measured = sorted({round(x) for line in axis.lines for x in line.get_xdata()})
        axis.set_xticks(measured, measured)
        if not all(isnan(value(row)) for row in rows):  # a logarithmic axis needs a value
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0, -1].legend(fontsize=7)
    figure.suptitle(figure_label(f"{result['device']}, {result['precision']}"), fontsize=9)
    save(figure, target)


def _speed_in(mode: str) -> Callable[[dict[str, Any]], float]:
    """Images per second of a benchmark's row in one mode; NaN where it could not be measured."""

    def speed(row: dict[str, Any]) -> float:
        seconds = row["seconds_per_image"][mode]
        return 1 / seconds if seconds else nan

    return speed


def _memory_in(mode: str) -> Callable[[dict[str, Any]], float]:
    """Peak memory in MiB of a benchmark's row in one mode; NaN where it was not measured."""
    return lambda row: row["peak_memory_mib"].get(mode, nan)
