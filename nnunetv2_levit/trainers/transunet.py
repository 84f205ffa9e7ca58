"""The families of TransUNet, 2D UNETR and 2D CATS: one table, as they differ in the network alone."""

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CNNS, TRANSUNET_TAG, UNETR2D_TAG
from nnunetv2_levit.trainers.families import VIT_RECIPE_OPTIONS, Consequences, Family, Option, unet_levels
from nnunetv2_levit.trainers.recipe import Recipe

SIZES_BY_BLOCKS = {12: "12blocks", 3: "3blocks", 1: "1block"}

# TransUNet's own: 150 passes over Synapse's 2211 slices in batches of 24 are 55 of nnU-Net's epochs of 250.
TRANSUNET_RECIPE = Recipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=False,
    learning_rate=0.01,
    weight_decay=1e-4,
    warmup=0.0,
    gradient_clip=float("inf"),
    num_epochs=55,
    batch_size=24,
    weight_ce=0.5,
    weight_dice=0.5,
    augmentation="mirror_rotate",
    rotation_degrees=(-20.0, 20.0),
)
# The attention study's (Petitjean, Hasany and Meriaudeau 2023): 80 passes over Synapse's 2211 slices in batches of 12.
STUDY_RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-4,
    decay="constant",
    warmup=0.0,
    gradient_clip=float("inf"),
    num_epochs=59,
    batch_size=12,
)

STUDY = (
    "the attention study's recipe: AdamW 1e-4 fixed, CE + Dice, batch 12, 59 epochs (80 passes over Synapse; 100 over "
    "IBSR 18: _43epochs, over EMIDEC: _19epochs)"
)


def _number_of_blocks(size: str, _: frozenset[str]) -> Consequences:
    if size != SIZES_BY_BLOCKS[12]:
        raise UserError(f"the size {size} says how many transformer blocks there are: leave it or blocks<N> out")
    return Consequences()


def _pretrained_cats(_: str, options: frozenset[str]) -> Consequences:
    backbone = CNNS["resnet34" if "r34" in options else "resnet50"]
    return Consequences(attributes={"pretrained": (backbone.timm_tag, UNETR2D_TAG)})


BLOCKS = Option("blocks<N>", "N transformer blocks (1 to 11)", parameter="blocks", resolve=_number_of_blocks)
DEEP_SUPERVISION = Option("ds", "deep supervision at 1/2 and 1/4 (not in the papers)", {"auxiliary_heads": True})
CONV_STEM = Option(
    "convstem",
    "tokens by five convolutions instead of one (not in the papers)",
    {"conv_stem": True},
    excludes=("pretrained",),
)
PRETRAINED = "ImageNet weights of the encoders; stops where they can't be had"


def _family(
    name: str, summary: str, network: str, *, options: tuple[Option, ...], tag: str | tuple[str, str]
) -> Family:
    sizes = {"12blocks": network, "3blocks": f"{network}_3blocks", "1block": f"{network}_1block"}
    return Family(
        name=name,
        summary=summary,
        sizes=sizes,
        default_size=SIZES_BY_BLOCKS[12],
        recipe=Recipe(),
        options=options,
        pretrained_tags=dict.fromkeys(sizes, tag),
        sizes_by_blocks=SIZES_BY_BLOCKS,
        blocks={size: blocks for blocks, size in SIZES_BY_BLOCKS.items()},
    )


TRANSUNET = _family(
    "TransUNet",
    "TransUNet (Chen et al. 2021, arXiv 2102.04306)",
    "transunet",
    options=(
        BLOCKS,
        unet_levels("at strides 1 to 16 for the CNN and the decoder"),
        DEEP_SUPERVISION,
        *VIT_RECIPE_OPTIONS,
        Option("pretrained", PRETRAINED),
        Option(
            "paper",
            "the paper's recipe: SGD 0.01 with momentum 0.9, polynomial decay, 0.5 CE + 0.5 Dice, batch 24, mirroring "
            "and rotation, 55 epochs (150 passes over Synapse)",
            attributes={"recipe": TRANSUNET_RECIPE},
            excludes=("study",),
        ),
        Option("study", STUDY, attributes={"recipe": STUDY_RECIPE}),
    ),
    tag=TRANSUNET_TAG,
)
UNETR2D = _family(
    "UNETR2D",
    "2D UNETR (after Hatamizadeh et al. 2022, arXiv 2103.10504)",
    "unetr2d",
    options=(
        BLOCKS,
        CONV_STEM,
        unet_levels("at strides 1 to 8 as skip connections, and for the decoder"),
        DEEP_SUPERVISION,
        *VIT_RECIPE_OPTIONS,
        Option("pretrained", PRETRAINED),
        Option("paper", STUDY, attributes={"recipe": STUDY_RECIPE}),
    ),
    tag=UNETR2D_TAG,
)
CATS2D = _family(
    "CATS2D",
    "2D CATS (after Li et al. 2022), with ResNet-50",
    "cats2d",
    options=(
        BLOCKS,
        Option("r34", "ResNet-34 in place of ResNet-50", {"resnet": "resnet34"}, excludes=("unetlevels",)),
        CONV_STEM,
        unet_levels("at strides 1 to 16 for the CNN and the decoder"),
        DEEP_SUPERVISION,
        *VIT_RECIPE_OPTIONS,
        Option("pretrained", PRETRAINED, resolve=_pretrained_cats),
        Option("paper", STUDY, attributes={"recipe": STUDY_RECIPE}),
    ),
    tag=(CNNS["resnet50"].timm_tag, UNETR2D_TAG),
)
