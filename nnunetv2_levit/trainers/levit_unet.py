"""The LeViT-UNet family of trainers."""

from nnunetv2_levit.network_architectures.levit_unet.sizes import LEVIT_VARIANTS, SKIPS
from nnunetv2_levit.trainers.families import BLOCKS_PER_STAGE, RECIPE_OPTIONS, Consequences, Family, Option
from nnunetv2_levit.trainers.recipe import Recipe

# Section 4.2 of the paper. Its 400 passes over ACDC (80 patients, about 1520 slices, batch 8: 190 iterations each) are
# 76,000 iterations, or 304 of nnU-Net's epochs of 250; its 350 passes over Synapse (2211 slices) are 387 epochs.
ACDC_EPOCHS = 304
PAPER_RECIPE = Recipe(
    optimizer="adam",
    learning_rate=1e-5,
    weight_decay=1e-4,
    decay="constant",
    warmup=0.0,
    gradient_clip=float("inf"),
    num_epochs=ACDC_EPOCHS,
    batch_size=8,
    augmentation="mirror_rotate",
    rotation_degrees=(-20.0, 20.0),  # the paper gives no range; this is TransUNet's, whose protocol it follows
)


def _skips_of_conv(_: str, options: frozenset[str]) -> Consequences:
    """Without a transformer c4 is the decoder's only input and stays: three skips are all of them."""
    if "conv" in options:
        return Consequences(network_options={"skips": SKIPS})
    return Consequences()


OPTIONS = (
    BLOCKS_PER_STAGE,
    Option(
        "conv",
        "no transformer: the paper's -Conv (Table 3)",
        network_options={"transformer": False},
        excludes=("blocks<N>",),
    ),
    *(
        Option(
            f"skips{n}",
            f"{n} skip connections (Table 4)",
            network_options={"skips": n},
            excludes=tuple(f"skips{m}" for m in range(5) if m != n),
            resolve=_skips_of_conv if n == SKIPS - 1 else None,
        )
        for n in range(5)
    ),
    Option(
        "identity",
        "every attention replaced by the identity",
        network_options={"identity_attention": True},
        excludes=("conv",),
    ),
    Option(
        "instancenorm",
        "instance norm for the batch norms of maps (not in the paper)",
        network_options={"norm": "instance"},
        excludes=("groupnorm", "pretrained"),
    ),
    Option(
        "groupnorm",
        "group norm (8 groups) for the batch norms of maps (not in the paper)",
        network_options={"norm": "group"},
        excludes=("pretrained",),
    ),
    Option(
        "tokenln",
        "layer norm for the batch norms of tokens (not in the paper)",
        network_options={"token_norm": "layer"},
        excludes=("conv", "pretrained"),
    ),
    Option(
        "unetlevels",
        "nnU-Net's levels at strides 1 to 8 for stem and decoder (not in the paper)",
        network_options={"unet_levels": True},
        excludes=(*(f"skips{n}" for n in range(5)), "instancenorm", "groupnorm", "pretrained"),
    ),
    Option("ds", "deep supervision at 1/4 and 1/8 (not in the paper)", network_options={"auxiliary_heads": True}),
    *RECIPE_OPTIONS,
    Option("pretrained", "ImageNet encoder; stops where the weights can't be had", excludes=("identity",)),
    Option(
        "paper",
        "the paper's recipe: Adam 1e-5 fixed, decay 1e-4, batch 8, mirroring and rotation, 304 epochs (400 passes over "
        "ACDC; Synapse: _paper_387epochs); with _pretrained its Table 1, without it the '-N' rows of Table 5",
        attributes={"recipe": PAPER_RECIPE},
    ),
)

LEVIT_UNET = Family(
    name="LeViTUNet",
    summary="LeViT-UNet (Xu et al. 2021, arXiv 2107.08623)",
    sizes={variant: f"levit_unet_{variant}" for variant in LEVIT_VARIANTS},
    default_size="384",
    recipe=Recipe(),
    options=OPTIONS,
    pretrained_tags={variant: values.timm_tag for variant, values in LEVIT_VARIANTS.items()},
    blocks={variant: max(values.depths) for variant, values in LEVIT_VARIANTS.items()},
    network_defaults={"skips": SKIPS},
)
