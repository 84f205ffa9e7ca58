"""2D CATS (after Li et al. 2022), whole and truncated to fewer transformer blocks.

The form of Petitjean, Hasany and Meriaudeau (2023): 2D UNETR whose maps are added to those of a ResNet.
"""

from typing import Any

from torch import Tensor

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.cnn_encoder import CNNS, build_cnn
from nnunetv2_levit.network_architectures.convolution_blocks import DoubleConv
from nnunetv2_levit.network_architectures.unetr2d import TIMM_TAG, UNETR2D, WIDTH
from nnunetv2_levit.network_architectures.vit_network import PretrainedPart

RESNETS = ("resnet50", "resnet34")


class CATS2D(UNETR2D):
    """2D CATS: `UNETR2D` with a ResNet whose maps at 1/16, 1/8, 1/4 and 1/2 are added to the transformer's.

    With fewer than 12 blocks only the deepest map is added to. The constructor takes ``resnet`` ("resnet50" or
    "resnet34") beside the arguments of `UNETR2D`; ``pretrained`` takes the ResNet's and the transformer's weights.
    """

    name = "2D CATS"

    def __init__(self, *, resnet: str = "resnet50", **arguments: Any) -> None:
        if resnet not in RESNETS:
            raise UserError(f"2D CATS has the backbones {' and '.join(RESNETS)}, not {resnet!r}")
        self.resnet = resnet
        super().__init__(**arguments)

    def _build_encoders(self) -> tuple[int, int, int, int]:
        backbone = CNNS[self.resnet]
        self.pretrained_parts = (
            PretrainedPart(backbone.timm_tag, {"cnn.": ""}),
            PretrainedPart(TIMM_TAG, {"vit.": ""}),
        )
        w2, w4, w8, w16 = backbone.widths
        self.cnn = build_cnn(backbone, in_channels=self.in_channels, strides=(2, 4, 8, 16))
        self.bottleneck = DoubleConv(WIDTH, w16)
        return w16, w8, w4, w2

    def _fuse(self, maps: list[Tensor], image: Tensor) -> list[Tensor]:
        maps = [self.bottleneck(maps[0]), *maps[1:]]
        return [x + c for x, c in zip(maps, reversed(self.cnn(image)), strict=False)]
