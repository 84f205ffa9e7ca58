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
from functools import partial
from typing import Any

from torch import nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.cats2d import CATS2D
from nnunetv2_levit.network_architectures.levit_encoder import LEVIT_VARIANTS
from nnunetv2_levit.network_architectures.levit_unet import LeViTUNet
from nnunetv2_levit.network_architectures.transfuse import TRANSFUSE_SIZES, TransFuse
from nnunetv2_levit.network_architectures.transunet import TransUNet
from nnunetv2_levit.network_architectures.unet2022 import UNET2022_SIZES, UNet2022
from nnunetv2_levit.network_architectures.unetr2d import UNETR2D

MIN_SIZE, MAX_SIZE = 32, 1024

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    **{f"levit_unet_{variant}": partial(LeViTUNet, variant=variant) for variant in LEVIT_VARIANTS},
    **{
        f"levit_unet_{variant}_conv": partial(LeViTUNet, variant=variant, transformer=False)
        for variant in LEVIT_VARIANTS
    },
    **{f"unet2022_{size}": partial(UNet2022, size=size) for size in UNET2022_SIZES},
    **{f"transfuse_{size}": partial(TransFuse, size=size) for size in TRANSFUSE_SIZES},
    **{
        f"{name}{suffix}": partial(network, blocks=blocks)
        for name, network in {"transunet": TransUNet, "unetr2d": UNETR2D, "cats2d": CATS2D}.items()
        for suffix, blocks in {"": 12, "_3blocks": 3, "_1block": 1}.items()
    },
}


def create(name: str, *, in_channels: int, num_classes: int, image_size: tuple[int, int], **options: Any) -> nn.Module:
    """Build a registered network for ``image_size`` (height, width) in pixels.

    Raises:
        UserError: unknown name, a size outside 32 to 1024, or a channel or class count below 1.
    """
    if name not in REGISTRY:
        raise UserError(f"network {name!r} is not registered: choose one of {', '.join(REGISTRY)}")
    size = tuple(int(side) for side in image_size)
    if len(size) != 2 or not all(MIN_SIZE <= side <= MAX_SIZE for side in size):
        raise UserError(
            f"image size {tuple(image_size)} is not (height, width) with {MIN_SIZE} to {MAX_SIZE} pixels each"
        )
    if in_channels < 1 or num_classes < 1:
        raise UserError(f"{name} needs at least one channel and one class, got {in_channels} and {num_classes}")
    return REGISTRY[name](in_channels=in_channels, num_classes=num_classes, image_size=size, **options)
