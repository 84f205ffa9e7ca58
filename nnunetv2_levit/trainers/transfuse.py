"""The TransFuse family of trainers."""

from dataclasses import replace

from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CNNS, TRANSFUSE_SIZES
from nnunetv2_levit.trainers.families import VIT_RECIPE_OPTIONS, Family, Option, unet_levels
from nnunetv2_levit.trainers.recipe import Recipe

# The network's outputs are the final map, the transformer branch and the first fusion. These are the weights of the
# authors' code; the paper (section 2) gives 0.3 to the first fusion and 0.2 to the transformer.
OUTPUT_WEIGHTS = (0.5, 0.3, 0.2)
DEFAULT_RECIPE = Recipe(output_weights=OUTPUT_WEIGHTS)  # nnU-Net's loss: docs/lab/recipes.md

# Section 3; 30 passes over 1450 polyp images in batches of 16 are 2719 iterations, 11 of nnU-Net's epochs of 250.
PAPER_RECIPE = replace(
    DEFAULT_RECIPE,
    loss="boundary_weighted",
    optimizer="adam",
    betas=(0.5, 0.999),
    learning_rate=1e-4,
    weight_decay=0.0,
    decay="constant",
    warmup=0.0,
    gradient_clip=2.0,
    num_epochs=11,
    batch_size=16,
    augmentation="mirror_rotate",
)

OPTIONS = (
    Option("blocks<N>", "N transformer blocks (S has 8, L 10 and Lstar 12)", parameter="blocks"),
    Option(
        "boundaryloss",
        "the paper's boundary-weighted loss in place of nnU-Net's Dice and cross-entropy",
        recipe_changes={"loss": "boundary_weighted"},
        excludes=("paper",),
    ),
    unet_levels("at strides 1 to 16 for the CNN, and two above the final map"),
    Option("nodropout", "without dropout of whole channels (not in the paper)", {"dropout": 0.0}),
    Option("nods", "without the heads on the transformer branch and the first fusion", {"auxiliary_heads": False}),
    Option(
        "multiscale",
        "patches at 0.75, 1 and 1.25 of their size in turn, as the paper trains on polyps",
        attributes={"train_scales": (0.75, 1.0, 1.25)},
    ),
    *VIT_RECIPE_OPTIONS,
    Option("pretrained", "ImageNet weights of both branches; stops where they can't be had"),
    Option(
        "paper",
        "the paper's recipe: Adam 1e-4 fixed with betas 0.5 and 0.999, batch 16, clip 2, 11 epochs (30 passes over "
        "1450 polyp images; ISIC 2017: _paper_15epochs)",
        attributes={"recipe": PAPER_RECIPE},
    ),
)

TRANSFUSE = Family(
    name="TransFuse",
    summary="TransFuse (Zhang et al. 2021, arXiv 2102.08005)",
    sizes={"S": "transfuse_s", "L": "transfuse_l", "Lstar": "transfuse_lstar"},
    default_size="S",
    recipe=DEFAULT_RECIPE,
    options=OPTIONS,
    network_options={"auxiliary_heads": True},
    blocks={size: values.blocks for size, values in zip(("S", "L", "Lstar"), TRANSFUSE_SIZES.values(), strict=True)},
    pretrained_tags={
        size: (CNNS[values.cnn].timm_tag, values.timm_tag)
        for size, values in zip(("S", "L", "Lstar"), TRANSFUSE_SIZES.values(), strict=True)
    },
)
