"""One folder of tables and one of figures: what they know of the rest, and that nothing else does their work."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import nnunetv2_levit
from nnunetv2_levit import figures, tables
from nnunetv2_levit.evaluation import case_metrics

PACKAGE = Path(nnunetv2_levit.__file__).parent
DRAWING = ("figures/attention.py", "figures/common.py", "figures/results.py")
TABLES = tuple(path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.glob("tables/*.py")))
SHARED = {"nnunetv2_levit.plain_text", "nnunetv2_levit.figures.common", "nnunetv2_levit.tables.common"}


def imported_modules(path):
    """The full names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_the_modules_of_figures_imports_matplotlib():
    files = {path.relative_to(PACKAGE).as_posix(): set(imported_modules(path)) for path in PACKAGE.rglob("*.py")}
    drawing = {name for name, modules in files.items() if any(m.split(".")[0] == "matplotlib" for m in modules)}
    assert drawing == set(DRAWING)
    # whose backend and open figures are the notebook's own
    assert not any("matplotlib.pyplot" in files[name] for name in DRAWING)


@pytest.mark.parametrize("name", [*DRAWING, *TABLES])
def test_tables_and_figures_know_no_room(name):
    """So that conversion, evaluation and benchmark can use them without importing one another."""
    ours = {module for module in imported_modules(PACKAGE / name) if module.startswith("nnunetv2_levit")}
    own_modules = {"nnunetv2_levit." + other.removesuffix(".py").replace("/", ".") for other in TABLES}
    assert ours <= SHARED | (own_modules if name == "tables/__init__.py" else set())


@pytest.mark.parametrize(
    ("function", "topics"),
    [
        ("markdown_table", {"attention", "comparison", "data_and_cost", "evaluation"}),
        ("csv_table", {"attention", "comparison", "evaluation"}),
    ],
)
def test_only_the_modules_of_tables_make_tables(function, topics):
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    users = {name for name, text in files.items() if f"{function}(" in text}
    assert users == {"plain_text.py", *(f"tables/{topic}.py" for topic in topics)}


def test_every_metric_has_a_heading():
    assert tables.METRICS == case_metrics.METRICS


@pytest.mark.parametrize(
    ("value", "how", "text"),
    [
        (None, {}, "–"),
        (0.5, {}, "0.50"),
        (0.5, {"percent": True}, "50.00"),
        (0.25, {"sign": True}, "+0.25"),
        (-0.25, {"sign": True, "percent": True}, "-25.00"),
        (1234.6, {"digits": 0}, "1235"),
    ],
)
def test_numbers_of_cells(value, how, text):
    assert tables.number(value, **how) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0009, "< 0.001"), (0.001, "0.001"), (1.0, "1.000")])
def test_p_values_of_cells(value, text):
    assert tables.p_value(value) == text


@pytest.mark.parametrize("ends", [None, [-0.125, 0.25]])
def test_intervals_of_cells(ends):
    shown = tables.interval(ends, percent=True, sign=True)
    assert shown == ("–" if ends is None else "[-12.50, +25.00]")


def test_structures_have_their_own_colours_up_to_twenty():
    for count in (1, 10, 11, 20):
        assert len(set(figures.structure_colours(count))) == count
    assert len(figures.structure_colours(23)) == 23


def test_a_patient_without_a_value_leaves_an_empty_group(tmp_path):
    panels = {"DSC (%)": {"RV": np.array([[50.0, 60.0], [70.0, 80.0]]), "LV": np.empty((2, 0))}}
    figures.draw_comparison(panels, models=["A", "B"], footnote="", target=tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes().startswith(b"\x89PNG")


def test_figures_leave_pyplot_alone(tmp_path):
    before = set(sys.modules)
    figures.draw_speed_accuracy(
        [("t", [{"name": "n", "images_per_second": 2.0, "dsc": 80.0, "parameters_m": None}])], tmp_path / "p.png"
    )
    assert "matplotlib.pyplot" not in set(sys.modules) - before
