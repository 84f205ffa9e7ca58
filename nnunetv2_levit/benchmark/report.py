"""Tables and figures of measured costs, from their JSON."""

from math import isnan, nan
from pathlib import Path
from typing import Any

from nnunetv2_levit.files import beside, write_json, write_text, write_whole, written_together
from nnunetv2_levit.plain_text import figure_label, markdown_table, markdown_text


def as_markdown(result: dict[str, Any]) -> str:
    """A table of the rows, with the machine above it: milliseconds per image of each mode, and what it needs."""
    modes = result["modes"]
    measured = [mode for mode in modes if any(mode in row["peak_memory_mib"] for row in result["rows"])]
    head = ["network", "patch", "batch", "parameters (M)", "GMAC per image"]
    head += [f"{mode} (ms per image)" for mode in modes] + [f"memory, {mode} (MiB)" for mode in measured]
    rows = []
    for row in result["rows"]:
        height, width = row["patch_size"]
        cells = [row["network"], f"{height}×{width}", str(row["batch_size"])]
        cells += [f"{row['parameters'] / 1e6:.2f}", f"{row['gmac_per_image']:.2f}"]
        times = [row["seconds_per_image"][mode] for mode in modes]
        cells += ["–" if seconds is None else f"{1e3 * seconds:.2f}" for seconds in times]
        cells += [f"{row['peak_memory_mib'][m]:.0f}" if m in row["peak_memory_mib"] else "–" for m in measured]
        rows.append(cells)
    machine = markdown_text(f"{result['device']}, {result['precision']}, torch {result['torch']}")
    return f"{machine}\n\n{markdown_table(head, rows)}"


def write_benchmark(result: dict[str, Any], path: Path) -> None:
    """``path`` (JSON) and, beside it, the same as ``.md`` and ``.png``: all three, or none."""
    table, picture = beside(path, ".md", ".png")
    with written_together(path.parent) as partial:
        write_json(partial / path.name, result)
        write_text(partial / table.name, as_markdown(result))
        write_whole(partial / picture.name, lambda target: draw(result, target))


def _figure(panels: int):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, index + 1) for index in range(panels)]


def draw(result: dict[str, Any], path: Path) -> None:
    """A PNG with a panel for the speed of each mode and for each measured memory, against the patch's side, or against
    the batch where one patch was measured; a line for each network."""
    rows = result["rows"]
    by_patch = len({tuple(row["patch_size"]) for row in rows}) > 1
    panels = [
        (mode, "images / s", lambda row, m=mode: 1 / seconds if (seconds := row["seconds_per_image"][m]) else nan)
        for mode in result["modes"]
    ]
    for mode in {mode: None for row in rows for mode in row["peak_memory_mib"]}:
        panels.append((f"memory, {mode}", "MiB", lambda row, m=mode: row["peak_memory_mib"].get(m, nan)))
    figure, axes = _figure(len(panels))
    names = list(dict.fromkeys(row["network"] for row in rows))
    for axis, (title, unit, value) in zip(axes, panels, strict=True):
        for index, name in enumerate(names):
            own = [row for row in rows if row["network"] == name]
            batch = max(row["batch_size"] for row in own)
            if by_patch:
                own = [row for row in own if row["batch_size"] == batch]
            x = [(row["patch_size"][0] * row["patch_size"][1]) ** 0.5 if by_patch else row["batch_size"] for row in own]
            y = [value(row) for row in own]
            axis.plot(x, y, ("o-", "s--", "^:")[index // 10 % 3], label=figure_label(name), color=f"C{index % 10}")
        axis.set(title=title, xlabel="patch side (pixels)" if by_patch else "batch size", ylabel=unit)
        axis.set_xscale("log", base=2)
        measured = sorted({round(x) for line in axis.lines for x in line.get_xdata()})
        axis.set_xticks(measured, measured)
        if not all(isnan(value(row)) for row in rows):  # a logarithmic axis needs a value
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[-1].legend(fontsize=7)
    figure.suptitle(figure_label(f"{result['device']}, {result['precision']}"), fontsize=9)
    figure.savefig(path, dpi=100)
