"""Families of other packages, found by the entry points that they declare: read without importing any of them."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

NETWORKS = "nnunetv2_levit.networks"
"""Group of entry points that name a `network_architectures.Family`."""
TRAINERS = "nnunetv2_levit.trainers"
"""Group of entry points that name a `trainers.families.Family`."""


@cache
def declared(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of a group, each once, in the order of their names."""
    found = {(entry.name, entry.value): entry for entry in entry_points(group=group)}
    return tuple(found[key] for key in sorted(found))


@cache
def registered_packages() -> tuple[str, ...]:
    """Packages that registered a family: whoever installed them trusts their networks as those of this package."""
    return tuple(sorted({entry.module.split(".")[0] for group in (NETWORKS, TRAINERS) for entry in declared(group)}))
