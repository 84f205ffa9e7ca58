"""Learning rates as a function of the epoch alone, so that a resumed training needs no scheduler state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch.optim import Optimizer

Decay = Literal["poly", "constant"]
POLY_EXPONENT = 0.9  # nnU-Net's
WARMUP_START = 0.01


def learning_rate_factor(progress: float, *, decay: Decay, warmup: float) -> float:
    """Multiplier of the initial learning rate after the share ``progress`` (0 to 1) of the training.

    Rises linearly from 1 % over the share ``warmup``, then decays over the rest of the training.
    """
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    decayed = min(1.0, (progress - warmup) / (1 - warmup)) if warmup < 1 else 0.0
    if decay == "poly":
        return (1 - decayed) ** POLY_EXPONENT
    return 1.0


class EpochSchedule:
    """Sets each parameter group's rate from the (fractional) epoch; per-group rates keep their ratio.

    nnU-Net calls ``step(epoch)`` at the start of an epoch; `HybridTrainer` calls it at each iteration as well.
    """

    def __init__(self, optimizer: Optimizer, *, num_epochs: int, decay: Decay, warmup: float) -> None:
        self.optimizer = optimizer
        self.initial_rates = [group["lr"] for group in optimizer.param_groups]
        self.num_epochs, self.decay, self.warmup = num_epochs, decay, warmup

    def step(self, epoch: float) -> None:
        factor = learning_rate_factor(epoch / self.num_epochs, decay=self.decay, warmup=self.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.initial_rates, strict=True):
            group["lr"] = rate * factor
