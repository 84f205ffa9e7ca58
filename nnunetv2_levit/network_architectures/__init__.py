"""The network registry: networks by name, built with `create`. Needs torch and timm only, not nnU-Net.

The contract that every network keeps (tested in tests/network_architectures/test_contract.py):

- constructed with keywords; ``forward`` maps (B, C, H, W) to logits (B, K, H, W), or to a list of logits with the full
  resolution first while the attribute ``deep_supervision`` is true;
- any height and width from 32 to 1024, rectangles and odd sizes included;
- auxiliary heads exist or not by construction (``auxiliary_heads``); ``deep_supervision`` only switches what
  ``forward`` returns, so the state dict never depends on it;
- ``deep_supervision_scales`` gives the resolution of each output relative to the image;
- trained with all outputs, every parameter receives a gradient.
"""

from collections.abc import Callable
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.base import MAX_SIZE, MIN_SIZE, Family, SegmentationNetwork
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_architectures.levit_unet.model import FAMILY as LEVIT_UNET
from nnunetv2_levit.network_architectures.unet2022.model import FAMILY as UNET2022
from nnunetv2_levit.network_architectures.vit_hybrids.cats2d import FAMILY as CATS2D
from nnunetv2_levit.network_architectures.vit_hybrids.transfuse import FAMILY as TRANSFUSE
from nnunetv2_levit.network_architectures.vit_hybrids.transunet import FAMILY as TRANSUNET
from nnunetv2_levit.network_architectures.vit_hybrids.unetr2d import FAMILY as UNETR2D

__all__ = ["FAMILIES", "MAX_SIZE", "MIN_SIZE", "REGISTRY", "Family", "SegmentationNetwork", "create"]

FAMILIES: tuple[Family, ...] = (LEVIT_UNET, UNET2022, TRANSFUSE, TRANSUNET, UNETR2D, CATS2D)

REGISTRY: dict[str, Callable[..., SegmentationNetwork]] = {
    name: constructor for family in FAMILIES for name, constructor in family.networks.items()
}


def create(name: str, *, in_channels: int, num_classes: int, image_size: Grid, **options: Any) -> SegmentationNetwork:
    """Build a registered network for ``image_size`` (height, width) in pixels; ``options`` are its own keywords.

    Raises:
        UserError: unknown name, a size outside 32 to 1024, or a channel or class count below 1.
    """
    if name not in REGISTRY:
        raise UserError(f"network {name!r} is not registered: choose one of {', '.join(REGISTRY)}")
    return REGISTRY[name](in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options)
