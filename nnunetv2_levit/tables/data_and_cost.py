"""Tables of raw datasets and of what networks cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_levit.plain_text import markdown_table, markdown_text
from nnunetv2_levit.tables.common import number


def overview_markdown(rows: Sequence[Mapping[str, Any]], structures: Mapping[str, Sequence[int]]) -> str:
    """The cases of a raw dataset; volumes of structures (their labels together) in ml, or pixels for pictures."""
    unit = rows[0]["label_unit"]
    head = ["case", "shape", "spacing (mm)", "intensity 1 / 50 / 99 %"]
    head += [*(f"{name} ({unit})" for name in structures), "outliers"]
    lines = [
        [
            row["case"],
            "×".join(str(side) for side in row["shape"]),
            " × ".join(f"{size:.3g}" for size in row["spacing_mm"]),
            " / ".join(f"{value:.4g}" for value in row["intensity_1_50_99"]),
            *(f"{sum(row['labels'].get(str(label), 0) for label in of_it):.4g}" for of_it in structures.values()),
            ", ".join(row["outliers"]),
        ]
        for row in rows
    ]
    return markdown_table(head, lines)


def benchmark_markdown(result: Mapping[str, Any]) -> str:
    """Measured costs with the machine above them: milliseconds per image of each mode, and the memory it needs."""
    modes = result["modes"]
    with_memory = [mode for mode in modes if any(mode in row["peak_memory_mib"] for row in result["rows"])]
    head = ["network", "patch", "batch", "parameters (M)", "GMAC per image"]
    head += [f"{mode} (ms per image)" for mode in modes] + [f"memory, {mode} (MiB)" for mode in with_memory]
    rows = []
    for row in result["rows"]:
        height, width = row["patch_size"]
        seconds = [row["seconds_per_image"][mode] for mode in modes]
        milliseconds = [None if value is None else 1e3 * value for value in seconds]
        memory = [row["peak_memory_mib"].get(mode) for mode in with_memory]
        rows.append(
            [
                row["network"],
                f"{height}×{width}",
                str(row["batch_size"]),
                number(row["parameters"] / 1e6),
                number(row["gmac_per_image"]),
                *(number(value) for value in milliseconds),
                *(number(value, digits=0) for value in memory),
            ]
        )
    machine = markdown_text(f"{result['device']}, {result['precision']}, torch {result['torch']}")
    return f"{machine}\n\n{markdown_table(head, rows)}"
