"""Sizes of TransFuse, TransUNet, 2D UNETR and 2D CATS, timm's weights for them, and their lines of the registry."""

from dataclasses import dataclass

from nnunetv2_levit.network_architectures.family import Constructor, Family


@dataclass(frozen=True)
class CNN:
    """A backbone of timm: its name, the widths at strides 2, 4, 8 and 16, and its ImageNet weights."""

    timm_model: str
    widths: tuple[int, int, int, int]
    timm_tag: str


CNNS = {
    "resnet34": CNN("resnet34", (64, 64, 128, 256), "resnet34.tv_in1k"),
    "resnet50": CNN("resnet50", (64, 256, 512, 1024), "resnet50.tv_in1k"),
    "res2net50": CNN("res2net50_26w_4s", (64, 256, 512, 1024), "res2net50_26w_4s.in1k"),
    "resnetv2_50": CNN("resnetv2_50x1_bit", (64, 256, 512, 1024), "resnetv2_50x1_bit.goog_in21k"),
}


@dataclass(frozen=True)
class TransFuseSize:
    """Backbones of one variant: the CNN, and the transformer's width, heads, blocks and timm's weights."""

    cnn: str
    width: int
    heads: int
    blocks: int
    timm_tag: str


TRANSFUSE_SIZES = {
    "s": TransFuseSize("resnet34", 384, 6, 8, "deit_small_patch16_224.fb_in1k"),
    "l": TransFuseSize("res2net50", 768, 12, 10, "deit_base_patch16_224.fb_in1k"),
    "lstar": TransFuseSize("resnetv2_50", 768, 12, 12, "vit_base_patch16_224.orig_in21k"),
}

BLOCKS = 12  # of the transformer in TransUNet, 2D UNETR and 2D CATS, unless they are truncated
TRANSUNET_TAG = "vit_base_r50_s16_224.orig_in21k"
UNETR2D_TAG = "vit_base_patch16_224.orig_in21k"


def _whole_and_truncated(name: str, class_name: str) -> Family:
    """A family of three numbers of blocks: all, three and one (Petitjean, Hasany and Meriaudeau 2023)."""
    module = f"{__package__}.{name}"
    return Family(
        networks={
            name: Constructor(module, class_name),
            f"{name}_3blocks": Constructor(module, class_name, {"blocks": 3}),
            f"{name}_1block": Constructor(module, class_name, {"blocks": 1}),
        },
        smallest=(f"{name}_1block",),
        others="deeper",
    )


TRANSFUSE = Family(
    networks={
        f"transfuse_{size}": Constructor(f"{__package__}.transfuse", "TransFuse", {"size": size})
        for size in TRANSFUSE_SIZES
    },
    smallest=("transfuse_s",),
    others="other parts",
)
TRANSUNET = _whole_and_truncated("transunet", "TransUNet")
UNETR2D = _whole_and_truncated("unetr2d", "UNETR2D")
CATS2D = _whole_and_truncated("cats2d", "CATS2D")
