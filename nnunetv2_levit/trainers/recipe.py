"""How a network is trained, as data: one `Recipe` per family, another one for its paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nnunetv2_levit.trainers.schedule import Decay

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

BIAS_TABLES = ("attention_biases", "relative_position_bias_table")
"""What LeViT's and Swin's tables of biases by distance are called."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training; what is None stays as nnU-Net plans it.

    Attributes:
        learning_rate: the highest rate, reached after the warm-up.
        warmup: share of the training over which the rate rises.
        gradient_clip: largest norm of the gradient over all parameters.
        adaptive_clip: before that, largest norm of each unit's gradient as a share of its weights' norm (Brock et al.
            2021); None for none.
        weight_average: share of the training's iterations over which the weights are averaged (see `WeightAverage`); 0
            for none.
        bf16: training steps compute in bfloat16, on CPUs too, where nnU-Net takes float16 on CUDA alone.
        betas: of Adam and AdamW; ``momentum`` and ``nesterov`` are SGD's (the defaults are nnU-Net's).
        loss: nnU-Net's own, weighted, or `BoundaryWeightedLoss`.
        output_weights: weight of each output under deep supervision; None halves it from output to output.
        batch_size: patches per iteration over all GPUs; None takes the plans'.
        augmentation: nnU-Net's own, or mirroring and rotation alone.
        mirroring: whether patches, and images at prediction, are mirrored.
        rotation_degrees: range of rotations; None takes nnU-Net's.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.99
    nesterov: bool = True
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    decay: Decay = "poly"
    warmup: float = 0.02
    gradient_clip: float = 1.0
    adaptive_clip: float | None = None
    weight_average: float = 0.0
    bf16: bool = False
    num_epochs: int = 1000
    batch_size: int | None = None
    weight_ce: float = 1.0
    weight_dice: float = 1.0
    loss: Literal["dice_ce", "boundary_weighted"] = "dice_ce"
    output_weights: tuple[float, ...] | None = None
    augmentation: Literal["nnunet", "mirror_rotate"] = "nnunet"
    mirroring: bool = True
    rotation_degrees: tuple[float, float] | None = None

    def build_optimizer(self, network: nn.Module) -> Optimizer:
        """Optimizer over two groups: weights, and what takes no decay (norms, scalars, biases, bias tables).

        Adam here adds the decay to the gradient as the papers' code does, so it gets one group with everything.
        """
        from torch.optim import SGD, Adam, AdamW  # here, as recipes are listed without torch

        parameters = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        if self.optimizer == "adam":
            return Adam(
                [p for _, p in parameters], lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
            )
        plain = [p for name, p in parameters if p.ndim < 2 or name.endswith(BIAS_TABLES)]
        kept = {id(p) for p in plain}
        groups = [
            {"params": [p for _, p in parameters if id(p) not in kept], "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        if self.optimizer == "sgd":
            return SGD(groups, lr=self.learning_rate, momentum=self.momentum, nesterov=self.nesterov)
        on_cpu = all(parameter.device.type == "cpu" for _, parameter in parameters)
        return AdamW(groups, lr=self.learning_rate, betas=self.betas, fused=on_cpu or None)  # else a loop on CPUs
