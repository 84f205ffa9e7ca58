"""What a plans file may name: networks and layers of installed libraries, not any function of any module.

nnU-Net imports the module and calls the object that ``network_class_name`` and ``_kw_requires_import`` of a plans file
name, whatever it is (`torch.hub.load`, for example, downloads code and runs it).
"""

import builtins
import pydoc
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.any_network.signature import CLASS
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import REGISTRY, register_other_packages
from nnunetv2_levit.network_architectures.entry_points import registered_packages

LIBRARIES = (
    *("torch", "dynamic_network_architectures", "nnunetv2", "nnunetv2_levit"),
    *("monai", "timm", "segmentation_models_pytorch"),
)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _within_adapter(keywords: dict[str, Any]) -> list[str]:
    """What the adapter imports: the network that it adapts, and classes of layers among that one's arguments."""
    network = keywords.get("network")
    register_other_packages()
    texts = [text.removeprefix(CLASS) for text in _texts(keywords.get("arguments")) if "." in text or CLASS in text]
    return texts if network in REGISTRY else [str(network), *texts]


def _named(architecture: dict[str, Any]) -> list[str]:
    """Dotted names in a configuration's architecture, the network's first."""
    keywords = architecture.get("arch_kwargs") or {}
    imported = architecture.get("_kw_requires_import") or ()
    names = [value for key, value in keywords.items() if isinstance(value, str) and ("." in value or key in imported)]
    network_class = architecture.get("network_class_name")
    if network_class == ADAPTER:
        return [*names, *_within_adapter(keywords)]
    return [name for name in (network_class, *names) if name]


def _is_harmless(name: Any) -> bool:
    """Whether nothing but a network or a layer can come of importing and calling what has this name."""
    if not isinstance(name, str):
        return False
    library = name.split(".")[0]
    if library not in (*LIBRARIES, *registered_packages()):
        # what is not there can't be imported; for a trainer with a network of its own the name means nothing
        known = hasattr(builtins, library) or library in sys.modules
        return not known and (not library.isidentifier() or find_spec(library) is None)
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    # a library's module gives access to what it imports, so the object counts, not the way to it
    return found is None or (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and found.__module__.split(".")[0] in (*LIBRARIES, *registered_packages())
        # nowhere but at its one place, where what it imports is looked through
        and f"{found.__module__}.{found.__qualname__}" != ADAPTER
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
