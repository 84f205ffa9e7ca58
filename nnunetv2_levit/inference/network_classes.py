"""What a plans file may name: networks and layers of installed libraries, not any function of any module.

nnU-Net imports the module and calls the object that ``network_class_name`` and ``_kw_requires_import`` of a plans file
name, whatever it is (`torch.hub.load`, for example, downloads code and runs it).
"""

import pydoc
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


def _is_network_or_layer(name: Any) -> bool:
    if not isinstance(name, str) or name.split(".")[0] not in LIBRARIES:
        return False
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    if found is None:  # nnU-Net then looks for a class of that name in dynamic_network_architectures
        return name.split(".")[0] == "dynamic_network_architectures"
    # a library's module gives access to what it imports, so the object counts, not the way to it
    return isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.split(".")[0] in LIBRARIES


def check_network_classes(plans: dict[str, Any], path: Path) -> None:
    """Refuse plans that name anything but networks and layers of `LIBRARIES`.

    Raises:
        UserError: the sentence names what, and says how it can be loaded all the same.
    """
    for name, configuration in plans["configurations"].items():
        for named in _named(configuration.get("architecture") or {}):
            if not _is_network_or_layer(named):
                raise UserError(
                    f"{path}: the configuration {name} names {named}, which is no network or layer of "
                    f"{', '.join(LIBRARIES)}, so it may run any code; add --trust-checkpoint if you trust whoever made it"
                )
