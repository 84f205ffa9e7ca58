"""Warnings that are for the developers of a library, and that the user of a command can do nothing about."""

import os
import sys
import warnings


def hide_library_warnings() -> None:
    """Show this package's warnings only, in this process and in those that it starts.

    Whoever asks for warnings, with ``python -W`` or PYTHONWARNINGS, gets all of them.
    """
    if sys.warnoptions:
        return
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"nnunetv2_levit(\.|$)")
    os.environ["PYTHONWARNINGS"] = "ignore"
