"""What is imported is declared, the version has one source, and the pages at the root of the repository are true."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nnunetv2_levit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
USER_EXTRAS = ("export", "synapse-h5", "cluster", "smp", "class-activation")  # the others are for developers
# torch.onnx and nnU-Net import them; networks are imported by name
NEVER_IMPORTED = {"onnx", "onnxscript", "simpleitk", "segmentation-models-pytorch"}


def distributions(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(path: Path) -> dict[str, bool]:
    """Top-level names of the absolute imports of a module, and whether any is made when the module is imported."""
    found: dict[str, bool] = {}

    def visit(node: ast.AST, at_import: bool) -> None:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            found[top] = found.get(top, False) or at_import
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_import and not inside)

    visit(ast.parse(path.read_text()), True)
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, tuple[Path, bool]]:
    """Every foreign name that the package imports: a module that does, and whether one does so when it is imported."""
    result: dict[str, tuple[Path, bool]] = {}
    for path in sorted(Path(nnunetv2_levit.__file__).parent.rglob("*.py")):
        for name, at_import in imported(path).items():
            if name not in sys.stdlib_module_names and name != "nnunetv2_levit":
                previous = result.get(name, (path, False))
                result[name] = (path if at_import and not previous[1] else previous[0], at_import or previous[1])
    return result


def test_every_imported_distribution_is_declared(imports):
    required = distributions(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    optional = required | set().union(*(distributions(extras[name]) for name in USER_EXTRAS))
    owners = packages_distributions()
    undeclared = []
    for name, (path, at_import) in imports.items():
        allowed = required if at_import else optional  # an extra is imported by the function that needs it
        if not {canonicalize_name(owner) for owner in owners.get(name, [name])} & allowed:
            undeclared.append(f"{name} in {path}")
    assert not undeclared


def test_every_declared_distribution_is_imported(imports):
    owners = packages_distributions()
    used = {canonicalize_name(owner) for name in imports for owner in owners.get(name, [name])}
    extras = PROJECT["project"]["optional-dependencies"]
    declared = distributions(PROJECT["project"]["dependencies"])
    declared |= set().union(*(distributions(extras[name]) for name in USER_EXTRAS))
    assert declared - used == NEVER_IMPORTED


def test_the_tests_install_every_extra_of_a_user():
    (ours,) = (r for r in map(Requirement, PROJECT["project"]["optional-dependencies"]["test"]) if r.extras)
    assert ours.extras == set(USER_EXTRAS)


def test_the_version_has_one_source():
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "nnunetv2_levit.__version__"}
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == nnunetv2_levit.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", nnunetv2_levit.__version__]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        path, _, fragment = target.partition("#")
        if "://" in target:
            continue
        file = ROOT / (path or page)
        if not file.exists():
            dead.append(target)
        elif fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            if fragment not in map(anchor, headings):
                dead.append(target)
    assert not dead


def test_every_path_in_contributing_exists():
    quoted = re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    paths = [
        text for text in quoted if re.fullmatch(r"\.?[\w.]+(/[\w.-]+)*/?", text) and ("/" in text or "." in text[1:])
    ]
    paths = [path for path in paths if "_build" not in path and not path.startswith(".npy")]
    assert len(paths) > 40
    assert not [path for path in paths if not (ROOT / path).exists()]
