"""The network that is checked, built for whatever a rule needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunetv2_levit.any_network.adaptation import Adaptation
from nnunetv2_levit.any_network.adapter import ONE_OUTPUT, AdaptedNetwork, scales_of, strides_of_scales
from nnunetv2_levit.any_network.names import NamedNetwork, locate_class
from nnunetv2_levit.any_network.nnunet_class import why_not_direct
from nnunetv2_levit.network_architectures import REGISTRY
from nnunetv2_levit.network_architectures.layers.grids import Grid

SIZE: Grid = (64, 64)
CLASSES = 4


@dataclass(frozen=True)
class Subject:
    """A named network within the adapter, which does nothing where ``adaptation`` asks for nothing."""

    network: NamedNetwork
    adaptation: Adaptation

    def build(
        self,
        *,
        channels: int = 1,
        classes: int = CLASSES,
        image_size: Grid = SIZE,
        seed: int = 0,
        deep_supervision: bool = False,
    ) -> AdaptedNetwork:
        """The network with random weights, the same for a seed."""
        torch.manual_seed(seed)
        strides: Sequence[Sequence[int]] = ONE_OUTPUT
        if self.network.target.isidentifier() and self.network.arguments.get("auxiliary_heads"):
            bare = self.network.build(channels=channels, classes=classes, image_size=image_size)
            strides = strides_of_scales(scales_of(bare))
            torch.manual_seed(seed)
        return AdaptedNetwork(
            channels,
            classes,
            network=self.network.target,
            arguments=self.network.arguments,
            image_size=image_size,
            size_multiple=self.adaptation.size_multiple,
            smallest_size=self.adaptation.smallest_size,
            output=self.adaptation.output,
            strides=strides,
            deep_supervision=deep_supervision,
        )

    def fitting(self, size: Grid) -> Grid:
        """The size, or for a network of square images alone the square of its longer side."""
        return (max(size), max(size)) if self.adaptation.squares_only else size

    @property
    def is_direct(self) -> bool:
        """Whether plans name the class itself, for patches that fit."""
        network = self.network
        if network.target in REGISTRY:
            return False
        return why_not_direct(locate_class(network.target, name=network.name), network) is None

    def build_trained(self) -> nn.Module:
        """The network that training sees: with its own deep supervision where plans name the class itself."""
        network = self.network
        if not self.is_direct:
            return self.build()
        torch.manual_seed(0)
        supervised = NamedNetwork(network.name, network.target, {**network.arguments, "deep_supervision": True})
        return supervised.build(channels=1, classes=CLASSES, image_size=SIZE)


def images(batch: int = 2, *, channels: int = 1, image_size: Grid = SIZE, seed: int = 0) -> Tensor:
    """Random images (B, C, H, W) as nnU-Net normalises them."""
    return torch.randn(batch, channels, *image_size, generator=torch.Generator().manual_seed(seed))


def randomised(network: nn.Module, *, seed: int = 1) -> nn.Module:
    """The network with no parameter at a special value, such as a norm that starts at one or a head at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point():
                noise = torch.rand(parameter.shape, generator=generator) * 0.18 - 0.09
                parameter.add_(noise.to(parameter.dtype))
    return network


def calibrated(network: nn.Module, pictures: Tensor) -> nn.Module:
    """The network with batch norms that have seen these images, as those of a trained network have seen theirs."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(pictures)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network
