"""The class that plans name for a network whose own constructor or outputs are not those that nnU-Net expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nnunetv2_levit.any_network.names import build_network
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.base import output_size
from nnunetv2_levit.network_architectures.layers.grids import Grid, crop, divide_rounding_up, pad, spatial_size

ONE_OUTPUT = ((1, 1), (1, 1), (1, 1))
"""Strides from which nnU-Net computes two scales, both 1."""


def strides_of_scales(scales: Sequence[float]) -> list[list[int]]:
    """Strides from which nnU-Net's stock trainers compute these scales and, once more, the last one.

    They drop the last stride, and give the last scale the weight 0: with it twice, every output of the network counts,
    and no weight is 0/0.
    """
    factors = [round(1 / scale) for scale in scales]
    strides = [first // before for before, first in zip([1, *factors], factors, strict=False)]
    return [[stride, stride] for stride in (*strides, 1, 1)]


def padded_size(size: Grid, *, multiple: int, smallest: int) -> Grid:
    """Height and width that a network gets for images of ``size``."""
    rows, columns = (divide_rounding_up(max(side, smallest), multiple) * multiple for side in size)
    return rows, columns


class AdaptedNetwork(nn.Module):
    """A network as nnU-Net's trainers build and call it, its own or this package's.

    ``forward`` takes (B, C, H, W) and returns logits (B, K, H, W); with ``deep_supervision`` a list of logits, the full
    resolution first and the last one twice (see `strides_of_scales`). nnU-Net switches ``decoder.deep_supervision``,
    which is this object's own. The state dict never depends on it.

    Args:
        input_channels, num_classes, deep_supervision: as nnU-Net hands them on.
        network: a registered name, or the importable path of a class.
        arguments: of that class, with placeholders (see `signature`).
        image_size: height and width of the patches in pixels.
        size_multiple, smallest_size: images are padded with zeros below and at the right to a multiple of the one and
            to the other at least, and the logits cropped back.
        output: which of several outputs are the logits of full resolution: an index or a key.
        strides: nnU-Net's trainers read them in the plans, to compute the scales of deep supervision.

    Raises:
        UserError: the network's package is missing, or the network can't be built.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        network: str,
        arguments: Mapping[str, Any],
        image_size: Sequence[int],
        size_multiple: int = 1,
        smallest_size: int = 1,
        output: int | str | None = None,
        strides: Sequence[Sequence[int]] = ONE_OUTPUT,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.size_multiple, self.smallest_size, self.output = size_multiple, smallest_size, output
        height, width = image_size
        self.network = build_network(
            network,
            arguments,
            channels=input_channels,
            classes=num_classes,
            image_size=padded_size((height, width), multiple=size_multiple, smallest=smallest_size),
        )
        if isinstance(self.network, AdaptedNetwork):
            raise UserError("the adapter adapts no adapter: name the network itself")
        self.deep_supervision_scales = scales_of(self.network)
        expected = strides_of_scales(self.deep_supervision_scales)
        if [list(stride) for stride in strides] != expected:
            raise UserError(f"the strides of the adapted network {network} are {expected}, not {list(strides)}")
        self.deep_supervision = deep_supervision

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """torch's `SyncBatchNorm.convert_sync_batchnorm`, which nnU-Net calls for several GPUs, hands back what it made
        of the network by this method."""
        super().add_module(name, module)
        if module is not None:
            _restore_activations(module)

    def is_needed(self, image_size: Grid) -> bool:
        """Whether the adapter pads images of this size, or chooses among outputs."""
        padded = padded_size(image_size, multiple=self.size_multiple, smallest=self.smallest_size)
        return padded != tuple(image_size) or self.output is not None

    @property
    def adapt_state_dict(self) -> Callable[..., dict[str, Tensor]]:
        """A registered network's method of that name, for state dicts of the adapter; other networks have none."""
        adapt: Callable[..., dict[str, Tensor]] = self.network.adapt_state_dict  # type: ignore[assignment]

        def adapted(state: Mapping[str, Tensor], *, image_size: Grid) -> dict[str, Tensor]:
            prefix = "network."
            own = {name.removeprefix(prefix): value for name, value in state.items()}
            padded = padded_size(image_size, multiple=self.size_multiple, smallest=self.smallest_size)
            return {prefix + name: value for name, value in adapt(own, image_size=padded).items()}

        return adapted

    @property
    def decoder(self) -> AdaptedNetwork:
        """Where nnU-Net looks for the switch ``deep_supervision``."""
        return self

    @property
    def deep_supervision(self) -> bool:
        """Whether ``forward`` returns a list."""
        return self._deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        self._deep_supervision = enabled
        if len(self.deep_supervision_scales) > 1:
            self.network.deep_supervision = enabled  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        size = spatial_size(images)
        wanted = padded_size(size, multiple=self.size_multiple, smallest=self.smallest_size)
        result = self.network(pad(images, wanted))
        if self._deep_supervision and len(self.deep_supervision_scales) > 1:
            scales = self.deep_supervision_scales
            outputs = [crop(x, output_size(size, scale)) for x, scale in zip(result, scales, strict=True)]
            return [*outputs, outputs[-1]]
        logits = crop(result if isinstance(result, Tensor) else result[self.output], size)
        return [logits, logits] if self._deep_supervision else logits


def _restore_activations(network: nn.Module) -> None:
    """Let converted norms of timm's compute their activation again: torch's conversion keeps it, and never calls it."""
    from timm.layers.norm_act import SyncBatchNormAct

    for module in network.modules():
        if type(module) is nn.SyncBatchNorm and hasattr(module, "act"):
            module.__class__ = SyncBatchNormAct


def scales_of(network: nn.Module) -> tuple[float, ...]:
    """Resolution of each output under deep supervision: several for networks that keep this package's contract and
    were built with auxiliary heads, one for all others."""
    if getattr(network, "auxiliary_heads", False):
        return tuple(getattr(network, "deep_supervision_scales", (1.0,)))
    return (1.0,)
