"""timm's convolutional backbones as encoders of feature maps, and where their weights are in timm's files."""

import re
from dataclasses import dataclass

import timm
from torch import nn

from nnunetv2_levit.network_architectures.layer_norm import norms_in_autocast_precision


@dataclass(frozen=True)
class CNN:
    """A backbone of timm: its name, the widths at strides 2, 4, 8 and 16, and its ImageNet weights."""

    timm_model: str
    widths: tuple[int, int, int, int]
    timm_tag: str


CNNS = {
    "resnet34": CNN("resnet34", (64, 64, 128, 256), "resnet34.tv_in1k"),
    "resnet50": CNN("resnet50", (64, 256, 512, 1024), "resnet50.tv_in1k"),
    "res2net50": CNN("res2net50_26w_4s", (64, 256, 512, 1024), "res2net50_26w_4s.in1k"),
    "resnetv2_50": CNN("resnetv2_50x1_bit", (64, 256, 512, 1024), "resnetv2_50x1_bit.goog_in21k"),
}


@norms_in_autocast_precision()
def build_cnn(cnn: CNN, *, in_channels: int, strides: tuple[int, ...]) -> nn.Module:
    """Module from (B, C, H, W) to the maps at ``strides`` (of 2, 4, 8, 16), finest first; later stages are left out."""
    return timm.create_model(
        cnn.timm_model,
        pretrained=False,
        features_only=True,
        in_chans=in_channels,
        out_indices=tuple(stride.bit_length() - 2 for stride in strides),
    )


def timm_name(name: str) -> str:
    """Name in timm's classifier of a tensor of `build_cnn`'s module, which flattens nested stages."""
    return re.sub(r"^(stages|stem)_", r"\1.", name)
