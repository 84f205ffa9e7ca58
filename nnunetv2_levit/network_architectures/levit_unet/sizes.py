"""LeViT-UNet's sizes, and its line of the registry."""

from dataclasses import dataclass

from nnunetv2_levit.network_architectures.family import Constructor, Family


@dataclass(frozen=True)
class LeViTVariant:
    """One column of the LeViT paper's Table 1; widths, heads and depths are per stage."""

    widths: tuple[int, int, int]
    heads: tuple[int, int, int]
    key_dim: int
    depths: tuple[int, int, int]
    drop_path: float
    timm_tag: str


LEVIT_VARIANTS = {
    "128s": LeViTVariant((128, 256, 384), (4, 6, 8), 16, (2, 3, 4), 0.0, "levit_128s.fb_dist_in1k"),
    "192": LeViTVariant((192, 288, 384), (3, 5, 6), 32, (4, 4, 4), 0.0, "levit_192.fb_dist_in1k"),
    "384": LeViTVariant((384, 512, 768), (6, 9, 12), 32, (4, 4, 4), 0.1, "levit_384.fb_dist_in1k"),
}
SKIPS = 4  # connections from the encoder to the decoder, unless an option leaves some out


def _constructor(variant: str, **keywords: object) -> Constructor:
    return Constructor(f"{__package__}.model", "LeViTUNet", {"variant": variant, **keywords})


FAMILY = Family(
    networks={
        **{f"levit_unet_{variant}": _constructor(variant) for variant in LEVIT_VARIANTS},
        **{f"levit_unet_{variant}_conv": _constructor(variant, transformer=False) for variant in LEVIT_VARIANTS},
    },
    smallest=("levit_unet_128s", "levit_unet_128s_conv"),
    others="wider",
)
