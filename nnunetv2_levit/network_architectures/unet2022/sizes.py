"""UNet-2022's sizes, and its line of the registry."""

from dataclasses import dataclass

from nnunetv2_levit.network_architectures.family import Constructor, Family

BLOCKS_PER_STAGE = 3


@dataclass(frozen=True)
class UNet2022Size:
    """Embedding width and heads of the first stage (both double from stage to stage), and timm's matching ConvNeXt."""

    width: int
    heads: int
    timm_tag: str


UNET2022_SIZES = {
    "tiny": UNet2022Size(96, 3, "convnext_tiny.fb_in1k"),
    "base": UNet2022Size(128, 4, "convnext_base.fb_in1k"),
    "large": UNet2022Size(192, 6, "convnext_large.fb_in1k"),
}

FAMILY = Family(
    networks={
        f"unet2022_{size}": Constructor(f"{__package__}.model", "UNet2022", {"size": size}) for size in UNET2022_SIZES
    },
    smallest=("unet2022_tiny",),
    others="wider",
)
