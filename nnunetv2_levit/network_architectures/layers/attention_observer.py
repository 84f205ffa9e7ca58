"""The switch by which attention can be looked at. It is off, and changes no output where it is on.

Fused attention returns no weights. An attention module with an ``observer`` hands it the operands of its products; what
the observer makes of them lies beside the forward pass, which computes the output as ever. timm's blocks have no such
switch: `nnunetv2_levit.analysis.recording` computes their operands once more.
"""

from typing import Protocol

from torch import Tensor


class AttentionObserver(Protocol):
    """Called as softmax(q k^T / sqrt(d) + bias) v is computed, with what `biased_attention` gets."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> None: ...
