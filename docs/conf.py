"""Configuration of Sphinx: `make docs` builds the pages, `make linkcheck` also asks every address on the internet."""

import sys
from pathlib import Path

import nnunetv2_levit

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "nnunetv2_levit"
author = "The developers of nnunetv2_levit"
copyright = author
release = version = nnunetv2_levit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "registry_tables",
]
# tables that the benchmark wrote: pages of the laboratory link to them as files
exclude_patterns = ["_build", "lab/results/*.md"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"nnunetv2_levit {version}"

linkcheck_timeout = 30
linkcheck_workers = 2
linkcheck_ignore = [r"https://doi\.org/.*"]  # publishers turn programs away
