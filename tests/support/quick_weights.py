"""Random numbers for the many weights of the tests' networks, in a quarter of the time.

A network of 100 million weights takes seconds to be drawn, and the tests build hundreds. So large tensors are filled
from one recorded row of random numbers, read from a place that torch's own generator draws: a seed decides as ever.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

LARGE = 2**16
LENGTH = 1_000_003  # a prime, so that no two rows of a weight are equal

_generator = torch.Generator().manual_seed(0)
_UNIFORM = torch.rand(LENGTH, generator=_generator)
_NORMAL = torch.randn(LENGTH, generator=_generator)
_uniform, _normal = torch.Tensor.uniform_, torch.Tensor.normal_


def install() -> None:
    """Replace ``Tensor.uniform_`` and ``Tensor.normal_`` for large tensors on the CPU."""
    torch.Tensor.uniform_ = _quick_uniform
    torch.Tensor.normal_ = _quick_normal


def uninstall() -> None:
    torch.Tensor.uniform_ = _uniform
    torch.Tensor.normal_ = _normal


def _quick_uniform(self: Tensor, a: float = 0, b: float = 1, *, generator: torch.Generator | None = None) -> Tensor:
    if generator is not None or not _is_large(self):
        return _uniform(self, a, b, generator=generator)
    return _fill(self, lambda row: row.mul(b - a).add_(a), _UNIFORM)


def _quick_normal(self: Tensor, mean: float = 0, std: float = 1, *, generator: torch.Generator | None = None) -> Tensor:
    if generator is not None or not _is_large(self):
        return _normal(self, mean, std, generator=generator)
    return _fill(self, lambda row: row.mul(std).add_(mean), _NORMAL)


def _is_large(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()
    return plain and tensor.dtype in (torch.float32, torch.float64) and tensor.numel() >= LARGE


def _fill(tensor: Tensor, scaled: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
    first = int(torch.randint(LENGTH, ()))
    row = scaled(torch.cat([numbers[first:], numbers[:first]]))
    for part in tensor.detach().view(-1).split(LENGTH):
        part.copy_(row[: len(part)])
    return tensor
