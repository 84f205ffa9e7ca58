"""Layer and group norms that stay in the precision of autocast."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.layers import is_fast_norm, set_fast_norm
from timm.layers.fast_norm import fast_layer_norm
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis, by timm's function for reduced precision.

    Autocast would compute a layer norm in fp32: the input is copied to fp32, the output written in fp32 and copied
    again by each linear layer and convolution that reads it. Here input and output have autocast's precision, while the
    kernel still takes mean and variance in fp32. Without autocast it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        shape: Any = self.normalized_shape  # timm says list
        return fast_layer_norm(x, shape, self.weight, self.bias, self.eps)


def norm_channels(norm: nn.Module, x: Tensor) -> Tensor:
    """Layer norm over the channels of (B, C, H, W); no copy in channels-last memory."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@contextmanager
def norms_in_autocast_precision() -> Iterator[None]:
    """What timm builds meanwhile gets group norms that do as `LayerNorm` does."""
    before = is_fast_norm()
    set_fast_norm(True)
    try:
        yield
    finally:
        set_fast_norm(before)
