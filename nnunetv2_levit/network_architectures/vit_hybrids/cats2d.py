"""2D CATS (after Li et al. 2022), whole and truncated to fewer transformer blocks.

The form of Petitjean, Hasany and Meriaudeau (2023): 2D UNETR whose maps are added to those of a ResNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CNNS
from nnunetv2_levit.network_architectures.vit_hybrids.unetr2d import PyramidNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nnunetv2_levit.network_architectures.vit_hybrids.unetr2d import PyramidArguments

RESNETS = ("resnet50", "resnet34")


class CATS2D(PyramidNetwork):
    """2D CATS: the ``resnet`` ("resnet50" or "resnet34") beside the transformer. Other arguments: `PyramidNetwork`."""

    title = "2D CATS"

    def __init__(
        self,
        *,
        resnet: str = "resnet50",
        **arguments: Unpack[PyramidArguments],
    ) -> None:
        if resnet not in RESNETS:
            raise UserError(f"2D CATS has the backbones {' and '.join(RESNETS)}, not {resnet!r}")
        super().__init__(backbone=CNNS[resnet], **arguments)
