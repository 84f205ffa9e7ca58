"""Configurations whose architecture is any 2D network: what ``configure --network`` writes into a plans file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_levit import schemas
from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.any_network.adaptation import Adaptation, find_adaptation
from nnunetv2_levit.any_network.adapter import AdaptedNetwork, scales_of, strides_of_scales
from nnunetv2_levit.any_network.batch import fitting_batch
from nnunetv2_levit.any_network.names import (
    NamedNetwork,
    find_network,
    is_importable_path,
    locate_class,
    target_of,
)
from nnunetv2_levit.any_network.nnunet_class import why_not_direct
from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.any_network.signature import CLASS, NNUNET, has_nnunet_signature, parameters_of
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.network_architectures import REGISTRY
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.nnunet.configurations import (
    MAX_BATCH_SIZE,
    MIN_BATCH_SIZE,
    check_sizes,
    plans_file,
    read_plans,
    resolved_base,
    write_configuration,
)

SHARE_OF_DATASET = 0.05  # nnU-Net's planner lets no batch hold more of all training voxels


@dataclass(frozen=True)
class AddedNetwork:
    """What was written.

    Attributes:
        configuration: its name.
        path: the plans file.
        network_class: what the plans name: the class itself, or this package's adapter.
        adapter: what the adapter does beside calling the class's own constructor.
        batch_size: of the configuration.
        gpu_gib: memory of a training step, counted; None where nothing was counted.
    """

    configuration: str
    path: Path
    network_class: str
    adapter: tuple[str, ...]
    batch_size: int
    gpu_gib: float | None

    @property
    def is_adapted(self) -> bool:
        """Whether the plans name the adapter."""
        return self.network_class == ADAPTER


def network_of_architecture(architecture: Mapping[str, Any]) -> NamedNetwork | None:
    """The network within the adapter that a configuration's architecture names; None where it names none.

    Raises:
        UserError: the adapter is named without a network and its arguments.
    """
    if architecture.get("network_class_name") != ADAPTER:
        return None
    keywords = architecture.get("arch_kwargs") or {}
    network, arguments = keywords.get("network"), keywords.get("arguments")
    if not isinstance(network, str) or not isinstance(arguments, Mapping):
        raise UserError(
            "the plans name this package's adapter without a network and its arguments: write the configuration anew "
            "with `nnunetv2_levit configure --network`"
        )
    return NamedNetwork(network, network, dict(arguments))


def _planned(network_class: type, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """What nnU-Net planned for its own network (strides, features, …), of what a class with its signature takes."""
    if architecture.get("network_class_name") == ADAPTER or not has_nnunet_signature(network_class):
        return {}
    imported = architecture.get("_kw_requires_import") or ()
    return {
        key: f"{CLASS}{value}" if key in imported and value is not None else value
        for key, value in (architecture.get("arch_kwargs") or {}).items()
        if key in parameters_of(network_class)
    }


def _found(name: str, settings: Mapping[str, Any], architecture: Mapping[str, Any]) -> NamedNetwork:
    if name not in REGISTRY and is_importable_path(name):
        settings = {**_planned(locate_class(target_of(name), name=name), architecture), **settings}
    return find_network(name, settings)


def _direct(network: NamedNetwork) -> dict[str, Any]:
    """The architecture that names the class itself."""
    given = {key: value for key, value in network.arguments.items() if key not in NNUNET[:3]}
    classes = [key for key, value in given.items() if isinstance(value, str) and value.startswith(CLASS)]
    keywords = {key: value.removeprefix(CLASS) if key in classes else value for key, value in given.items()}
    return {"network_class_name": network.target, "arch_kwargs": keywords, "_kw_requires_import": classes}


def _adapted(network: NamedNetwork, adaptation: Adaptation, bare: nn.Module, patch_size: Grid) -> dict[str, Any]:
    keywords = {
        "network": network.target,
        "arguments": network.arguments,
        "image_size": list(patch_size),
        "size_multiple": adaptation.size_multiple,
        "smallest_size": adaptation.smallest_size,
        "output": adaptation.output,
        "strides": strides_of_scales(scales_of(bare)),
    }
    return {"network_class_name": ADAPTER, "arch_kwargs": keywords, "_kw_requires_import": []}


def _largest_batch(plans: Mapping[str, Any], dataset: Mapping[str, Any], patch_size: Grid) -> int:
    """The batch that nnU-Net's planner would not exceed, whatever the memory."""
    planned = plans["configurations"]
    name, axes = ("3d_fullres", 3) if "3d_fullres" in planned else ("2d", 2)  # which pictures have alone
    median = planned.get(name, {}).get("median_image_size_in_voxels")
    cases = dataset.get("numTraining")
    if not isinstance(median, list) or len(median) != axes or not isinstance(cases, int):
        return MAX_BATCH_SIZE
    if not all(isinstance(side, int | float) for side in median):
        return MAX_BATCH_SIZE
    voxels = cases * math.prod(float(side) for side in median)
    pixels = patch_size[0] * patch_size[1]
    return max(MIN_BATCH_SIZE, min(MAX_BATCH_SIZE, round(SHARE_OF_DATASET * voxels / pixels)))


def _channels_and_classes(plans: dict[str, Any], dataset: dict[str, Any], base: str, path: Path) -> tuple[int, int]:
    """Input and output channels of a configuration's network, by nnU-Net's rules."""
    from nnunetv2_levit.nnunet.trained_model import input_channels

    try:
        manager = PlansManager(plans)
        channels = input_channels(manager, manager.get_configuration(base), dataset)
        return channels, manager.get_label_manager(dataset).num_segmentation_heads
    except Exception as error:  # plans may be edited by hand
        raise UserError(
            f"channels and classes of {base} can't be read from {path} and dataset.json beside it "
            f"({type(error).__name__}: {error}): plan the dataset anew"
        ) from error


def add_network_configuration(
    *,
    dataset_id: int,
    network: str | None = None,
    settings: Mapping[str, Any] | None = None,
    base: str = "2d",
    patch_size: Grid | None = None,
    batch_size: int | None = None,
    gpu_memory: float | None = None,
    name: str | None = None,
    plans_name: str = "nnUNetPlans",
    overwrite: bool = False,
) -> AddedNetwork:
    """Add a configuration that inherits from the 2D configuration ``base`` and whose architecture is any network.

    Args:
        network: a name as `find_network` takes it; None for the network that ``base`` names by the adapter.
        settings: arguments of its constructor.
        patch_size: height and width in pixels; None inherits them.
        batch_size: None inherits it, unless ``gpu_memory`` (GiB) chooses the largest whose training step fits.

    Raises:
        UserError: no such dataset, plans, configuration or network, one that can't be trained on this patch, a patch
            that does not fit into the memory, or a name already taken.
    """
    path = plans_file(dataset_id, plans_name)
    plans = read_plans(path)
    least = batch_size if gpu_memory is None else MIN_BATCH_SIZE
    parent = resolved_base(path, plans, base=base, batch_size=least)
    rows, columns = patch_size or parent["patch_size"]
    patch = (rows, columns)
    check_sizes(patch, batch_size)
    if gpu_memory is not None and batch_size is not None:
        raise UserError("--gpu-memory chooses the batch size, and --batch gives it: leave one of them out")
    dataset = read_json(path.parent / "dataset.json", what="the dataset's description", schema=schemas.DATASET)
    channels, classes = _channels_and_classes(plans, dataset, base, path)

    architecture = parent.get("architecture") or {}
    named = network_of_architecture(architecture) if network is None else _found(network, settings or {}, architecture)
    if named is None:
        raise UserError(f"{path}: the configuration {base} names no network of another package: give --network")
    built = named.of_any_size(channels=channels, classes=classes)
    adaptation = find_adaptation(built, channels=channels, classes=classes, sizes=(patch,))
    bare = built(adaptation.padded(patch))
    is_direct = (
        named.target not in REGISTRY
        and not adaptation.reasons()
        and why_not_direct(locate_class(named.target, name=named.name), named, image_size=patch) is None
    )
    written = _direct(named) if is_direct else _adapted(named, adaptation, bare, patch)

    def trained(size: Grid) -> nn.Module:
        if is_direct:
            return named.build(channels=channels, classes=classes, image_size=size)
        keywords = {**written["arch_kwargs"], "image_size": size}
        return AdaptedNetwork(channels, classes, **keywords, deep_supervision=False)

    gib = None
    if gpu_memory is not None:
        most = _largest_batch(plans, dataset, patch)
        batch_size, gib = fitting_batch(
            NetworkOfAnySize(trained, takes_image_size=True),
            channels=channels,
            patch_size=patch,
            gpu_memory=gpu_memory,
            most=most,
        )
    entry: dict[str, Any] = {"inherits_from": base, "architecture": written}
    if patch != tuple(parent["patch_size"]):
        entry["patch_size"] = [int(side) for side in patch]
    if batch_size is not None:
        entry["batch_size"] = int(batch_size)
    size = f"_p{rows}x{columns}" if "patch_size" in entry else ""
    chosen = name or f"{base}{size}{f'_{named.plain_name}' if network is not None else ''}"
    write_configuration(path, plans, name=chosen, base=base, entry=entry, overwrite=overwrite)
    return AddedNetwork(
        configuration=chosen,
        path=path,
        network_class=written["network_class_name"],
        adapter=() if is_direct else tuple(adaptation.reasons()),
        batch_size=batch_size or int(parent["batch_size"]),
        gpu_gib=gib,
    )
