"""TransFuse's loss: cross-entropy and IoU, both weighted towards boundaries (section 2, after F3Net)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW, STRENGTH = 31, 5.0


def boundary_weight(mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 + 5 |mean of a 31 x 31 window - mask| for binary masks (B, K, H, W): up to 6 at a boundary, near 1 far from it.

    Pixels beyond the border count as zeros. Where ``valid`` (B, 1, H, W) is 0 a pixel has weight 0, and means are taken
    over valid pixels alone.
    """

    def mean(x: Tensor) -> Tensor:  # of columns, then of rows: 62 additions a pixel instead of 961
        columns = F.avg_pool2d(x, (WINDOW, 1), stride=1, padding=(WINDOW // 2, 0))
        return F.avg_pool2d(columns, (1, WINDOW), stride=1, padding=(0, WINDOW // 2))

    if valid is None:
        return 1 + STRENGTH * (mean(mask) - mask).abs()
    share = mean(valid) / mean(torch.ones_like(valid))
    local = mean(mask * valid) / share.clamp_min(1 / WINDOW**2)
    return (1 + STRENGTH * (local - mask).abs()) * valid


def one_vs_rest_logits(logits: Tensor) -> Tensor:
    """Logits s (B, K-1, H, W) of the foreground classes with sigmoid(s_k) = softmax(logits)_k, from (B, K, H, W)."""
    classes = logits.shape[1]
    rest = [torch.logsumexp(torch.cat([logits[:, :k], logits[:, k + 1 :]], dim=1), dim=1) for k in range(1, classes)]
    return logits[:, 1:] - torch.stack(rest, dim=1)


class BoundaryWeightedLoss(nn.Module):
    """Mean over images and classes of weighted binary cross-entropy + 1 - weighted IoU.

    Several classes are treated one against the rest over the softmax, the background aside; with one foreground class
    that is the paper's loss of the difference of the two logits. nnU-Net's regions take a sigmoid each.

    ``forward`` takes logits (B, K, H, W) and labels (B, 1, H, W), or with ``regions`` masks (B, K, H, W), with one more
    channel that marks what to ignore where the dataset has an ignore label. Computed in fp32 whatever the autocast.
    """

    def __init__(self, *, regions: bool, ignore_label: int | None) -> None:
        super().__init__()
        self.regions, self.ignore_label = regions, ignore_label

    def _masks(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Binary logits, their masks, and 1 where a pixel counts (None for everywhere)."""
        valid = None
        if self.regions:
            target = target.float()
            if self.ignore_label is not None:
                valid, target = 1 - target[:, -1:], target[:, :-1]
            return logits, target, valid
        if self.ignore_label is not None:
            valid = (target != self.ignore_label).float()
        classes = torch.arange(1, logits.shape[1], device=target.device).view(1, -1, 1, 1)
        return one_vs_rest_logits(logits), (target == classes).float(), valid

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits, mask, valid = self._masks(logits.float(), target)
            weight = boundary_weight(mask, valid)
            entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
            entropy = (weight * entropy).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)
            probability = torch.sigmoid(logits)
            intersection = (weight * probability * mask).sum((2, 3))
            union = (weight * (probability + mask)).sum((2, 3)) - intersection
            return (entropy + 1 - (intersection + 1) / (union + 1)).mean()
