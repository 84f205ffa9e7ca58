"""Training at several scales (TransFuse, section 3: 352 x (0.75, 1, 1.25) for polyps)."""

import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 32


def rescaled(data: Tensor, target: Tensor | list[Tensor], scale: float) -> tuple[Tensor, Tensor | list[Tensor]]:
    """Images (B, C, H, W) and labels at ``scale``, in sizes rounded to multiples of 32 (32 at least).

    Images bilinear with aligned corners, labels by the nearest neighbour. Every label map gets the size of the images,
    so this is for networks whose outputs all have full resolution. At scale 1 nothing is changed.
    """
    if scale == 1:
        return data, target
    size = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in data.shape[2:]]
    labels = [F.interpolate(t.float(), size, mode="nearest").to(t.dtype) for t in _listed(target)]
    images = F.interpolate(data, size, mode="bilinear", align_corners=True)
    return images, labels if isinstance(target, list) else labels[0]


def _listed(target: Tensor | list[Tensor]) -> list[Tensor]:
    return target if isinstance(target, list) else [target]
