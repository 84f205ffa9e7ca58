"""The networks that are compared: the registered ones, and nnU-Net's own as it would plan them for a patch."""

from collections.abc import Mapping
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import nn

from nnunetv2_levit.any_network.adaptation import find_adaptation
from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.any_network.names import find_network
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import MAX_SIZE, MIN_SIZE, create, list_networks
from nnunetv2_levit.network_architectures.layers.grids import Grid

# what nnU-Net's ExperimentPlanner and nnUNetPlannerResEncM set for 2D configurations
SMALLEST_FEATURE_MAP = 4
BASE_FEATURES, MOST_FEATURES = 32, 512
PLAIN_CONVOLUTIONS = 2
RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)

REFERENCES = ("nnunet_plain", "nnunet_resenc_m")


def measurable() -> tuple[str, ...]:
    """Names of all networks that can be measured: nnU-Net's own, then the registered ones."""
    return (*REFERENCES, *list_networks())


def check_patch(name: str, patch_size: tuple[int, int], settings: Mapping[str, Any] | None = None) -> None:
    """Check, without building it, that a network can be had for a patch (height, width) in pixels.

    A name that is neither nnU-Net's nor registered is one of another package, as `find_network` takes it.

    Raises:
        UserError: an unknown name, ``settings`` that it does not take, or an impossible size.
    """
    if name not in measurable():
        if ":" not in name and "." not in name:
            raise UserError(f"network {name!r} is not registered: choose from {', '.join(measurable())}")
        find_network(name, settings)
    height, width = patch_size
    if not all(MIN_SIZE <= side <= MAX_SIZE for side in patch_size):
        raise UserError(f"the patch {height}x{width} has a side outside {MIN_SIZE} to {MAX_SIZE} pixels")
    if name in REFERENCES:
        padded = get_pool_and_conv_props((1.0, 1.0), patch_size, SMALLEST_FEATURE_MAP, 999999)[3]
        if tuple(padded) != tuple(patch_size):
            raise UserError(
                f"nnU-Net would not plan a patch of {height}x{width} for {name} but {padded[0]}x{padded[1]}: give "
                "that size"
            )


def nnunet_network(name: str, *, in_channels: int, num_classes: int, patch_size: tuple[int, int]) -> nn.Module:
    """PlainConvUNet ("nnunet_plain") or the residual encoder U-Net M as nnU-Net plans them for square pixels."""
    _, strides, kernels, _, _ = get_pool_and_conv_props((1.0, 1.0), patch_size, SMALLEST_FEATURE_MAP, 999999)
    stages = len(strides)
    shared = dict(
        input_channels=in_channels,
        n_stages=stages,
        features_per_stage=[min(BASE_FEATURES * 2**stage, MOST_FEATURES) for stage in range(stages)],
        conv_op=nn.Conv2d,
        kernel_sizes=kernels,
        strides=strides,
        num_classes=num_classes,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    if name == "nnunet_plain":
        convolutions = [PLAIN_CONVOLUTIONS] * stages
        return PlainConvUNet(n_conv_per_stage=convolutions, n_conv_per_stage_decoder=convolutions[1:], **shared)
    return ResidualEncoderUNet(
        n_blocks_per_stage=list(RESENC_BLOCKS[:stages]), n_conv_per_stage_decoder=[1] * (stages - 1), **shared
    )


def _within_adapter(
    name: str, settings: Mapping[str, Any] | None, *, in_channels: int, num_classes: int, patch_size: Grid
) -> nn.Module:
    """Any network within the adapter, as plans that `configure --network` writes name it."""
    network = find_network(name, settings)
    built = network.of_any_size(channels=in_channels, classes=num_classes)
    found = find_adaptation(built, channels=in_channels, classes=num_classes, sizes=(patch_size,))
    torch.manual_seed(0)
    return AdaptedNetwork(
        in_channels,
        num_classes,
        network=network.target,
        arguments=network.arguments,
        image_size=patch_size,
        size_multiple=found.size_multiple,
        smallest_size=found.smallest_size,
        output=found.output,
        deep_supervision=False,
    )


def build(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network by name, with the same random weights at each call.

    Args:
        settings: arguments of its constructor, as `find_network` takes them; not of nnU-Net's own.

    Raises:
        UserError: an unknown name, settings that it does not take, or an impossible size.
    """
    check_patch(name, patch_size, settings)
    torch.manual_seed(0)
    if name in REFERENCES:
        return nnunet_network(name, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    if name not in list_networks():
        return _within_adapter(name, settings, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    if settings:
        network = find_network(name, settings)
        return network.build(channels=in_channels, classes=num_classes, image_size=patch_size)
    return create(name, in_channels=in_channels, num_classes=num_classes, image_size=patch_size)
