"""Trainers for comparing recipes: put this file's folder into nnUNet_extTrainer (docs/lab/recipe.md says how)."""

from dataclasses import replace

from nnunetv2_levit.trainers import trainer_class


def variant(tag: str, name: str, network_options: dict | None = None, **recipe):
    base = trainer_class(name)
    attributes = {
        "recipe": replace(base.recipe, **recipe),
        "network_options": {**base.network_options, **(network_options or {})},
        "__module__": __name__,
    }
    return type(tag, (base,), attributes)


LEVIT = "LeViTUNetTrainer_128s_50iterations_8epochs"
RecipeAdamW2e4 = variant("RecipeAdamW2e4", LEVIT, learning_rate=2e-4)
RecipeAdamW5e4 = variant("RecipeAdamW5e4", LEVIT, learning_rate=5e-4)
RecipeAdamW1e3 = variant("RecipeAdamW1e3", LEVIT, learning_rate=1e-3)
RecipeAdamW2e3 = variant("RecipeAdamW2e3", LEVIT, learning_rate=2e-3)
RecipeSGD = variant(  # nnU-Net's own recipe
    "RecipeSGD", LEVIT, optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5, warmup=0.0, gradient_clip=12.0
)
DeepSupervision = variant("DeepSupervision", LEVIT.replace("128s", "128s_ds"))
ConvOnly = variant("ConvOnly", LEVIT.replace("128s", "128s_conv"))

UNET2022 = "UNet2022Trainer_50iterations_6epochs"
Gamma1e6 = variant("Gamma1e6", UNET2022, {"layer_scale": 1e-6})
Gamma01 = variant("Gamma01", UNET2022, {"layer_scale": 0.1})
Gamma1 = variant("Gamma1", UNET2022, {"layer_scale": 1.0})

PAPERS_OPTIMIZER = {  # of UNet-2022: Adam with a fixed rate
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "decay": "constant",
    "warmup": 0.0,
    "gradient_clip": 12.0,
}
Adam1e4Gamma1e6 = variant("Adam1e4Gamma1e6", UNET2022, {"layer_scale": 1e-6}, **PAPERS_OPTIMIZER)
Adam1e4Gamma01 = variant("Adam1e4Gamma01", UNET2022, {"layer_scale": 0.1}, **PAPERS_OPTIMIZER)
