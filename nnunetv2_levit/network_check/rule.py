"""What a rule is, and how it says that it is not kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from nnunetv2_levit.network_check.subject import Subject


class BrokenRuleError(Exception):
    """A rule is not kept: what was seen, and how to mend it."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen)
        self.seen, self.remedy = seen, remedy


class RemarkError(BrokenRuleError):
    """Training and prediction work all the same, but something else does not: what, and how to mend it."""


class NotCheckedError(Exception):
    """A rule could not be tried here, and why."""


Rule = Callable[[Subject], str]


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits are the same but for rounding."""
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * max(1.0, theirs.abs().max().item()), equal_nan=True)
