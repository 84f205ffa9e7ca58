"""The UNet-2022 family of trainers."""

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.unet2022.sizes import BLOCKS_PER_STAGE as DEPTH
from nnunetv2_levit.network_architectures.unet2022.sizes import UNET2022_SIZES
from nnunetv2_levit.trainers.families import BLOCKS_PER_STAGE, RECIPE_OPTIONS, Consequences, Family, Option
from nnunetv2_levit.trainers.recipe import Recipe

NNUNET_ITERATIONS = 250


def _paper_recipe(*, learning_rate: float, batch_size: int, passes: int, slices: int) -> Recipe:
    """The paper's loss, optimizer and augmentation (section 4.2); passes over the data restated as nnU-Net's epochs."""
    return Recipe(
        optimizer="adam",
        learning_rate=learning_rate,
        weight_decay=0.0,
        decay="constant",
        warmup=0.0,
        gradient_clip=12.0,
        num_epochs=round(passes * slices / batch_size / NNUNET_ITERATIONS),
        batch_size=batch_size,
        weight_dice=1.2,
        weight_ce=0.8,
        # as the paper says; a slip in the authors' code makes it effectively +-180 degrees
        rotation_degrees=(0.0, 15.0),
    )


# By size and stem stride, each for the dataset that the paper trained it on.
PAPER_RECIPES = {
    ("tiny", 4): _paper_recipe(learning_rate=1e-4, batch_size=8, passes=1300, slices=2211),  # Synapse, 320 x 320
    ("base", 4): _paper_recipe(learning_rate=1e-4, batch_size=16, passes=2700, slices=2211),  # Synapse, 224 x 224
    ("large", 4): _paper_recipe(learning_rate=1e-4, batch_size=8, passes=500, slices=1290),  # ACDC, 224 x 224
    ("tiny", 8): _paper_recipe(learning_rate=7e-4, batch_size=8, passes=2000, slices=24),  # EM, 512 x 512
}


def _resolve_paper(size: str, options: frozenset[str]) -> Consequences:
    stride = 8 if "p8" in options else 4
    if (size, stride) not in PAPER_RECIPES:
        raise UserError(f"the paper trained no UNet-2022 {size} with stem stride {stride}: leave out p8 or paper")
    recipe = {"recipe": PAPER_RECIPES[size, stride]}
    if size == "large":  # no deep supervision on ACDC
        return Consequences(network_options={"auxiliary_heads": False}, attributes=recipe)
    return Consequences(attributes=recipe)


OPTIONS = (
    BLOCKS_PER_STAGE,
    Option("p8", "stem stride 8, for patches of about 512 (64 pixels a side at least)", {"stem_stride": 8}),
    Option("printed", "blocks as Eq. 2 to 4 print them, instead of as the authors coded them", {"variant": "paper"}),
    Option("nosa", "PI blocks without self-attention (Table 6)", {"attention": False}, excludes=("nodw",)),
    Option("nodw", "PI blocks without the depth-wise convolution beside the attention", {"convolution": False}),
    Option("swin", "Swin blocks (Table 5, ST)", {"block": "swin"}, excludes=("printed", "nosa", "nodw")),
    Option(
        "convnext",
        "ConvNeXt blocks (Table 5, CNX)",
        {"block": "convnext"},
        excludes=("printed", "nosa", "nodw", "swin"),
    ),
    Option(
        "unetlevels",
        "nnU-Net's levels at strides 1 to 4 for the stem and the first stage (not in the paper)",
        {"unet_levels": True},
        excludes=("p8", "pretrained"),
    ),
    Option("nods", "without deep supervision", {"auxiliary_heads": False}),
    *RECIPE_OPTIONS,
    Option(
        "pretrained",
        "ConvNeXt's ImageNet weights in the first part of every block; stops where they can't be had",
        excludes=("swin",),
    ),
    Option(
        "paper",
        "the paper's recipe: Adam with fixed rate, 1.2 Dice + 0.8 CE, clip 12, batch and length by size "
        "(tiny: Synapse 320, base: Synapse 224, large: ACDC 224 without deep supervision, tiny p8: EM 512)",
        resolve=_resolve_paper,
    ),
)

UNET2022 = Family(
    name="UNet2022",
    summary="UNet-2022 (Guo et al. 2022, arXiv 2210.15566)",
    sizes={size: f"unet2022_{size}" for size in UNET2022_SIZES},
    default_size="tiny",
    recipe=Recipe(),
    options=OPTIONS,
    network_options={"auxiliary_heads": True},
    pretrained_tags={size: values.timm_tag for size, values in UNET2022_SIZES.items()},
    blocks=dict.fromkeys(UNET2022_SIZES, DEPTH),
)
