"""Measured costs as files: JSON, and a table and a figure made from it."""

from pathlib import Path
from typing import Any

from nnunetv2_levit.figures import draw_benchmark
from nnunetv2_levit.files import beside, write_json, write_text, write_whole, written_together
from nnunetv2_levit.tables import benchmark_markdown


def write_benchmark(result: dict[str, Any], path: Path) -> None:
    """``path`` (JSON) and, beside it, the same as ``.md`` and ``.png``: all three, or none."""
    table, picture = beside(path, ".md", ".png")
    with written_together(path.parent) as partial:
        write_json(partial / path.name, result)
        write_text(partial / table.name, benchmark_markdown(result))
        write_whole(partial / picture.name, lambda target: draw_benchmark(result, target))
