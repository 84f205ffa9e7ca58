"""Depth-wise convolution whose weights' gradient is computed fast on a CPU.

oneDNN takes many times as long for that gradient as for the forward pass on the small maps of transformers. It is a
depth-wise convolution itself: of the images with the output's gradient, each pair of image and channel on its own,
summed over the images.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGEST_MAP = 32 * 32  # beyond it oneDNN's own gradient is the faster one, or as fast


class _DepthwiseConvolution(torch.autograd.Function):
    """Depth-wise convolution of odd kernel with "same" padding: (B, C, H, W) -> (B, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=_padding(weight), groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        of_x = F.conv_transpose2d(gradient, weight, padding=_padding(weight), groups=x.shape[1]) if for_x else None
        of_weight = weight_gradient(x, gradient, kernel=weight.shape[2:]).to(weight.dtype) if for_weight else None
        of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(weight.dtype) if for_bias else None
        return of_x, of_weight, of_bias


def _padding(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2


def weight_gradient(x: Tensor, gradient: Tensor, *, kernel: tuple[int, ...]) -> Tensor:
    """Gradient of the weights (C, 1, h, w) from input and output's gradient, both (B, C, H, W), in float32."""
    batch, channels, height, width = x.shape
    rows, columns = kernel[0] // 2, kernel[1] // 2
    padded = F.pad(x.float(), (columns, columns, rows, rows)).transpose(0, 1)
    images = padded.reshape(1, channels * batch, height + 2 * rows, width + 2 * columns)
    kernels = gradient.float().transpose(0, 1).reshape(channels * batch, 1, height, width)
    each = F.conv2d(images, kernels, groups=channels * batch)
    return each.view(channels, batch, *kernel).sum(1, keepdim=True)


class DepthwiseConv2d(nn.Conv2d):
    """Depth-wise convolution of odd kernel with "same" padding and torch's own parameters and function."""

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "DepthwiseConv2d":
        """The same convolution, with the same parameters."""
        made = cls(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        made.weight, made.bias = convolution.weight, convolution.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        large = x.shape[2] * x.shape[3] > LARGEST_MAP
        if large or x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            precision = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(precision), weight.to(precision), None if bias is None else bias.to(precision)
        return _DepthwiseConvolution.apply(x, weight, bias)
