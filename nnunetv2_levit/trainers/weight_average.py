"""A moving average of a network's weights, which is evaluated and saved in place of the weights that are trained.

A checkpoint holds the average as nnU-Net's ``network_weights``, so that whatever reads checkpoints gets it. The trained
weights are part of the optimizer's state, as they belong to its momenta: ``--c`` goes on with both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

TRAINED_WEIGHTS = "trained_weights"  # the key in the optimizer's state
WARMUP_POWER = 2 / 3  # timm's


class WeightAverage:
    """Exponential moving average of a network's weights and statistics (batch norm's running ones).

    timm's and torch's go through the state dict or average what is no number to average; nnU-Net's networks have the
    same tensor there under several names.

    Args:
        network: the network itself, without wrappers.
        optimizer: its optimizer; its state dict gets the trained weights.
        iterations: after so many, a weight's share in the average has fallen by the factor e. At first it is averaged
            over fewer.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, *, iterations: float) -> None:
        self._decay = 1 - 1 / max(1.0, iterations)
        self._weights: dict[str, Tensor] = {
            name: tensor.detach()  # each tensor once
            for name, tensor in (*network.named_parameters(), *network.named_buffers())
        }
        self._others = {name: tensor.clone() for name, tensor in self._weights.items()}
        self._in_place = False
        optimizer.register_state_dict_post_hook(self._add_trained_weights)
        optimizer.register_load_state_dict_pre_hook(self._take_trained_weights)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After iteration number ``step`` of the training (from 1); the first one sets the average."""
        decay = min(self._decay, 1 - step**-WARMUP_POWER)
        fractions = [name for name, tensor in self._weights.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self._others[name] for name in fractions], [self._weights[name] for name in fractions], weight=1 - decay
        )
        for name in self._weights.keys() - set(fractions):
            self._others[name].copy_(self._weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the network has the averaged weights."""
        if self._in_place:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        self._in_place = not self._in_place
        for name, tensor in self._weights.items():
            before = tensor.clone()
            tensor.copy_(self._others[name])
            self._others[name].copy_(before)

    def _add_trained_weights(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        trained = self._others if self._in_place else self._weights
        return {**state, TRAINED_WEIGHTS: {name: tensor.clone() for name, tensor in trained.items()}}

    @torch.no_grad()
    def _take_trained_weights(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The network has just got a checkpoint's averaged weights: they become the average."""
        trained = state[TRAINED_WEIGHTS]
        for name, tensor in self._weights.items():
            self._others[name].copy_(tensor)
            tensor.copy_(trained[name])
        return {name: value for name, value in state.items() if name != TRAINED_WEIGHTS}
