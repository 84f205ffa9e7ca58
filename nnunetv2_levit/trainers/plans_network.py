"""The trainer of networks that the plans name: nnU-Net's own, or what a configuration names in their place.

It tells recipe and network apart: with it nnU-Net's U-Net and ResEnc are trained as the hybrids are.
"""

from typing import Any, ClassVar

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer


class PlansNetworkTrainer(HybridTrainer):
    """`HybridTrainer` with the configuration's network, 2D or 3D: building it, its deep supervision and the loss are
    nnU-Net's own. The optimizer, rates, clipping, augmentation and length are the recipe's.
    """

    only_2d: ClassVar[bool] = False

    @classmethod
    def trains_all_outputs(cls) -> bool:
        return True

    @classmethod
    def build_network_architecture(  # the signature is nnU-Net's
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        nnUNetTrainer.set_deep_supervision_enabled(self, enabled and self.enable_deep_supervision)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return nnUNetTrainer._get_deep_supervision_scales(self)

    def _build_loss(self) -> nn.Module:
        return nnUNetTrainer._build_loss(self)
