"""The network registry: networks by name, built with `create`. Needs torch and timm only, not nnU-Net.

The registry itself is read without torch: a network's module is imported when the network is built.

The contract that every network keeps (tested in tests/network_architectures/test_contract.py):

- constructed with keywords; ``forward`` maps (B, C, H, W) to logits (B, K, H, W), or to a list of logits with the full
  resolution first while the attribute ``deep_supervision`` is true;
- any height and width from 32 to 1024, rectangles and odd sizes included;
- auxiliary heads exist or not by construction (``auxiliary_heads``); ``deep_supervision`` only switches what
  ``forward`` returns, so the state dict never depends on it;
- ``deep_supervision_scales`` gives the resolution of each output relative to the image;
- trained with all outputs, every parameter receives a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.entry_points import NETWORKS, load_families
from nnunetv2_levit.network_architectures.family import MAX_SIZE, MIN_SIZE, Family
from nnunetv2_levit.network_architectures.levit_unet.sizes import FAMILY as LEVIT_UNET
from nnunetv2_levit.network_architectures.unet2022.sizes import FAMILY as UNET2022
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CATS2D, TRANSFUSE, TRANSUNET, UNETR2D

if TYPE_CHECKING:
    from nnunetv2_levit.network_architectures.base import SegmentationNetwork
    from nnunetv2_levit.network_architectures.layers.grids import Grid

__all__ = ["FAMILIES", "MAX_SIZE", "MIN_SIZE", "REGISTRY", "Family", "create", "list_networks"]

FAMILIES: tuple[Family, ...] = (LEVIT_UNET, UNET2022, TRANSFUSE, TRANSUNET, UNETR2D, CATS2D)

REGISTRY: dict[str, Callable[..., SegmentationNetwork]] = {
    name: constructor for family in FAMILIES for name, constructor in family.networks.items()
}


@cache
def register_other_packages() -> None:
    """Add the networks of the families that other packages declare, once; a name that is taken stays as it is.

    Not when this module is imported, as theirs import it.
    """
    for family in load_families(NETWORKS, Family):
        for name, constructor in family.networks.items():
            REGISTRY.setdefault(name, constructor)


def list_networks() -> list[str]:
    """Names of all registered networks, as `create` takes them."""
    register_other_packages()
    return list(REGISTRY)


def create(name: str, *, in_channels: int, num_classes: int, image_size: Grid, **options: Any) -> SegmentationNetwork:
    """Build a registered network with random weights (pretrained ones with ``pretrained=``).

    Args:
        name: one of `list_networks`.
        in_channels: channels of the images (B, in_channels, H, W).
        num_classes: channels of the logits (B, num_classes, H, W).
        image_size: (height, width) of the patches in pixels, 32 to 1024 each.
        options: the network's own keywords, such as ``auxiliary_heads=True``.

    Raises:
        UserError: unknown name, a size outside 32 to 1024, or a channel or class count below 1.
    """
    register_other_packages()
    if name not in REGISTRY:
        raise UserError(f"network {name!r} is not registered: choose one of {', '.join(REGISTRY)}")
    return REGISTRY[name](in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options)
