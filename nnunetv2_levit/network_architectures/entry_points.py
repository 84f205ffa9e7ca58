"""Families of other packages, found by the entry points that they declare."""

import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

NETWORKS = "nnunetv2_levit.networks"
"""Group of entry points that name a `network_architectures.Family`."""
TRAINERS = "nnunetv2_levit.trainers"
"""Group of entry points that name a `trainers.families.Family`."""


@cache
def declared(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of a group, each once, in the order of their names."""
    found = {(entry.name, entry.value): entry for entry in entry_points(group=group)}
    return tuple(found[key] for key in sorted(found))


def load_families(group: str, kind: type) -> Iterator[Any]:
    """The families of a group, each imported when it is its turn; one that can't be had is left out with a warning."""
    for entry in declared(group):
        try:
            family = entry.load()
        except Exception as error:  # another package may raise anything
            warnings.warn(f"the family {entry.value} can't be loaded ({type(error).__name__}: {error})", stacklevel=3)
            continue
        if isinstance(family, kind):
            yield family
        else:
            warnings.warn(f"{entry.value} is no {kind.__module__}.{kind.__name__}: it is left out", stacklevel=3)


@cache
def registered_packages() -> tuple[str, ...]:
    """Packages that registered a family: whoever installed them trusts their networks as those of this package."""
    return tuple(sorted({entry.module.split(".")[0] for group in (NETWORKS, TRAINERS) for entry in declared(group)}))
