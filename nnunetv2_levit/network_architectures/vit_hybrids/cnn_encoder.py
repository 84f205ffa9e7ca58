"""timm's convolutional backbones as encoders of feature maps, and where their weights are in timm's files."""

import timm
from torch import nn

from nnunetv2_levit.network_architectures.layers.layer_norm import norms_in_autocast_precision
from nnunetv2_levit.network_architectures.vit_hybrids.sizes import CNN

STRIDES = (2, 4, 8, 16)  # of timm's feature maps, in order

# Names of timm's classifiers as `PretrainedPart` takes them, for a module `cnn`; feature extraction flattens stages.
CNN_NAMES = ((r"cnn\.(stages|stem)_(.+)", r"\1.\2"), (r"cnn\.(.+)", r"\1"))


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
