"""Classes that nnU-Net looks up by name in its own packages: planners, fingerprint extractors, preprocessors."""

import contextlib
import importlib.util
import io
from pathlib import Path

from nnunetv2.utilities.find_class_by_name import recursive_find_python_class


def has_class(name: str, *, package: str) -> bool:
    """Whether nnU-Net finds a class of this name in its ``package``, such as ``experiment_planning``."""
    # names of nnU-Net's modules have a meaning of their own to its search
    if not name.isidentifier():
        return False
    module = f"nnunetv2.{package}"
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return False
    folder = str(Path(spec.submodule_search_locations[0]))
    found = None
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        found = recursive_find_python_class(folder, name, current_module=module)
    return isinstance(found, type)
