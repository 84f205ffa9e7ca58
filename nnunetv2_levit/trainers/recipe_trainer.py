"""The family without a network of its own: this package's recipe on the network that the plans name."""

from nnunetv2_levit.trainers.families import RECIPE_OPTIONS, Family
from nnunetv2_levit.trainers.recipe import Recipe

HYBRID_RECIPE = Family(
    name="HybridRecipe",
    summary="the network that the plans name (nnU-Net's U-Net or ResEnc, 2D or 3D) with this package's recipe",
    sizes={},
    default_size="",
    recipe=Recipe(),
    options=RECIPE_OPTIONS,
    network_of_plans=True,
)
