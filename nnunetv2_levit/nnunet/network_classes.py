"""What a plans file may name: networks and layers of installed libraries, not any function of any module.

nnU-Net imports the module and calls the object that ``network_class_name`` and ``_kw_requires_import`` of a plans file
name, whatever it is (`torch.hub.load`, for example, downloads code and runs it).
"""

import builtins
import pydoc
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from nnunetv2_levit.errors import UserError

LIBRARIES = ("torch", "dynamic_network_architectures", "nnunetv2", "nnunetv2_levit", "monai", "timm")


def _named(architecture: dict[str, Any]) -> list[str]:
    """Dotted names in a configuration's architecture, the network's first."""
    keywords = architecture.get("arch_kwargs") or {}
    imported = architecture.get("_kw_requires_import") or ()
    names = [value for key, value in keywords.items() if isinstance(value, str) and ("." in value or key in imported)]
    return [name for name in (architecture.get("network_class_name"), *names) if name]


def _is_harmless(name: Any) -> bool:
    """Whether nothing but a network or a layer can come of importing and calling what has this name."""
    if not isinstance(name, str):
        return False
    library = name.split(".")[0]
    if library not in LIBRARIES:
        # what is not there can't be imported; for a trainer with a network of its own the name means nothing
        known = hasattr(builtins, library) or library in sys.modules
        return not known and (not library.isidentifier() or find_spec(library) is None)
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    # a library's module gives access to what it imports, so the object counts, not the way to it
    return found is None or (
        isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.split(".")[0] in LIBRARIES
    )


def check_network_classes(plans: dict[str, Any], path: Path) -> None:
    """Refuse plans that name anything but networks and layers of `LIBRARIES`.

    Raises:
        UserError: the sentence names what, and says how it can be loaded all the same.
    """
    for name, configuration in plans["configurations"].items():
        for named in _named(configuration.get("architecture") or {}):
            if not _is_harmless(named):
                raise UserError(
                    f"{path}: the configuration {name} names {named}, which is no network or layer of "
                    f"{', '.join(LIBRARIES)}, so it may run any code; add --trust-checkpoint to load it all the same, "
                    "if you trust whoever made it"
                )
