"""What gates let through: TransFuse's spatial and channel gates, and the attention gates of its decoder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.vit_hybrids.fusion import AttentionGate, ChannelGate, SpatialGate

GateKind = Literal["spatial", "channel", "attention"]

# the layer whose output goes into the gate's sigmoid
BEFORE_SIGMOID: dict[type[nn.Module], tuple[GateKind, str]] = {
    SpatialGate: ("spatial", "mix"),
    ChannelGate: ("channel", "fc2"),
    AttentionGate: ("attention", "psi"),
}
TITLES = {
    "spatial": "spatial gate on the CNN",
    "channel": "channel gate on the transformer",
    "attention": "attention gate",
}


@dataclass(frozen=True)
class GateValues:
    """A gate's values for one image, 0 (closed) to 1 (open): a map (H, W), or of a channel gate one a channel, (C,)."""

    name: str
    kind: GateKind
    values: np.ndarray

    @property
    def title(self) -> str:
        size = "×".join(map(str, self.values.shape))
        return f"{TITLES[self.kind]}, {size}{' channels' if self.kind == 'channel' else ''}"

    def numbers(self) -> dict[str, Any]:
        """For JSON: mean, and the 5th and 95th percentile of the values."""
        low, high = np.percentile(self.values, (5, 95))
        return {
            "gate": self.name,
            "kind": self.kind,
            "shape": list(self.values.shape),
            "mean": float(self.values.mean()),
            "percentile_5": float(low),
            "percentile_95": float(high),
        }


def _keep(found: list[GateValues], name: str, kind: GateKind, _: nn.Module, __: tuple, output: Tensor) -> None:
    values = torch.sigmoid(output.detach().float())[0].cpu().numpy()
    found.append(GateValues(name, kind, values[:, 0, 0] if kind == "channel" else values[0]))


@contextmanager
def recorded_gates(network: nn.Module) -> Iterator[list[GateValues]]:
    """The gates' values for the first image that ``network`` computes here, in the order of the forward pass."""
    found: list[GateValues] = []
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if type(module) in BEFORE_SIGMOID:
                kind, layer = BEFORE_SIGMOID[type(module)]
                hook: Callable[..., None] = partial(_keep, found, name, kind)
                stack.callback(getattr(module, layer).register_forward_hook(hook).remove)
        yield found
