"""timm's convolutional backbones as encoders of feature maps, and where their weights are in timm's files."""

from dataclasses import dataclass

import timm
from torch import nn

from nnunetv2_levit.network_architectures.layers.layer_norm import norms_in_autocast_precision

STRIDES = (2, 4, 8, 16)  # of timm's feature maps, in order

# Names of timm's classifiers as `PretrainedPart` takes them, for a module `cnn`; feature extraction flattens stages.
CNN_NAMES = ((r"cnn\.(stages|stem)_(.+)", r"\1.\2"), (r"cnn\.(.+)", r"\1"))


@dataclass(frozen=True)
class CNN:
    """A backbone of timm: its name, the widths at `STRIDES`, and its ImageNet weights."""

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
    """Module from (B, C, H, W) to the maps at ``strides`` (of `STRIDES`), finest first; later stages are left out."""
    return timm.create_model(
        cnn.timm_model,
        pretrained=False,
        features_only=True,
        in_chans=in_channels,
        out_indices=tuple(STRIDES.index(stride) for stride in strides),
    )
