"""Linear layers by oneDNN on a CPU, for inference.

torch computes fp32 matrix products with MKL, which on AMD's processors leaves AVX-512 unused; its convolutions go
through oneDNN. The operators here are those that torch.compile puts in the place of linear layers.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.folding import is_changed_by_hooks

TOKENS = 196  # for this many tokens the weights are arranged; other numbers give the same result


class OneDnnLinear(nn.Linear):
    """A linear layer (..., in) -> (..., out) without gradients, its weight arranged for oneDNN beside the original."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this build of torch has the operators, and they compute what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    linear, x = nn.Linear(24, 40), torch.randn(2, 7, 24)
    try:
        with torch.no_grad():
            return torch.allclose(OneDnnLinear(linear)(x), F.linear(x, linear.weight, linear.bias), atol=1e-5)
    except (AttributeError, RuntimeError):
        return False


def with_onednn_linears(network: nn.Module) -> nn.Module:
    """The network with its fp32 linear layers replaced, where oneDNN is there.

    Replaced by exact type, as a subclass may do more.
    """
    if is_available():
        for parent in list(network.modules()):
            for name, child in list(parent._modules.items()):
                if type(child) is nn.Linear and child.weight.dtype == torch.float32 and not is_changed_by_hooks(child):
                    parent._modules[name] = OneDnnLinear(child)
    return network
