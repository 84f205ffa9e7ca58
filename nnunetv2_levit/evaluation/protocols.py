"""What the papers computed, to the letter, so that a row can stand beside theirs. Not what we would report.

Each protocol turns the labels of a case (and, where the paper thresholds them, its probabilities) into a few numbers a
structure; these are averaged over cases and then over structures. Sources of each are named in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnunetv2_levit.evaluation.case_metrics import presence_of
from nnunetv2_levit.evaluation.surface_distances import surface_distances

ISIC_SIZE = (192, 256)  # TransFuse, section 3: height and width that images and masks are resized to
ISIC_SMOOTH = 0.001
EM_THRESHOLDS = np.arange(0.5, 0.951, 0.05)  # UNet-2022, section 4.5
POLYP_THRESHOLDS = np.linspace(1, 0, 256)  # PraNet's evaluation

# (prediction mask, truth mask, probability of the structure or None) -> values by name
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray | None], dict[str, float]]


@dataclass(frozen=True)
class Protocol:
    """One paper's way of measuring; ``columns`` gives the heading of each value, ``percent`` those shown times 100."""

    name: str
    source: str
    statement: str
    columns: dict[str, str]
    measure: Measure
    percent: frozenset[str] = frozenset()
    needs_probabilities: bool = False


def _transunet(prediction: np.ndarray, truth: np.ndarray, _: np.ndarray | None) -> dict[str, float]:
    presence = presence_of(prediction, truth)
    if presence == "spurious":
        return {"dice": 1.0, "hd95": 0.0}
    if presence != "both":
        return {"dice": 0.0, "hd95": 0.0}
    common, total = (prediction & truth).sum(), prediction.sum() + truth.sum()
    distances = surface_distances(prediction, truth, (1.0,) * truth.ndim)
    return {"dice": float(2 * common / total), "hd95": distances.pooled_hausdorff_95()}


def _em(_: np.ndarray, truth: np.ndarray, probability: np.ndarray | None) -> dict[str, float]:
    if probability is None:
        raise ValueError("the protocol needs probabilities")
    scores = []
    for threshold in EM_THRESHOLDS:
        predicted = probability > threshold
        union = (predicted | truth).sum()
        scores.append((predicted & truth).sum() / union if union else 1.0)
    return {"miou": float(np.mean(scores)), "iou_at_0.5": float(scores[0])}


def _isic(prediction: np.ndarray, truth: np.ndarray, _: np.ndarray | None) -> dict[str, float]:
    masks = [_resized(mask, ISIC_SIZE) for mask in (prediction, truth)]
    common = (masks[0] & masks[1]).sum()
    total = masks[0].sum() + masks[1].sum()
    return {
        # as coded: the numerator's constant is doubled too, so that two empty masks score 2
        "dice": float(2 * (common + ISIC_SMOOTH) / (total + ISIC_SMOOTH)),
        "iou": float((common + ISIC_SMOOTH) / (total - common + ISIC_SMOOTH)),
        "accuracy": float((masks[0] == masks[1]).mean()),
    }


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) resized bilinearly without smoothing, as OpenCV does by default, and thresholded above a half."""
    from scipy.ndimage import map_coordinates

    if mask.shape == size:
        return mask
    # pixel centres, half a pixel in; coordinates beyond the rim take the rim's value
    axes = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, mask.shape, strict=True)]
    values = map_coordinates(mask.astype(float), np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")
    # OpenCV resizes masks of 0 and 255 in whole numbers; TransFuse divides by 255 and keeps what is above 0.5
    return np.floor(values * 255 + 0.5) > 127.5


def _polyp(prediction: np.ndarray, truth: np.ndarray, probability: np.ndarray | None) -> dict[str, float]:
    score = prediction.astype(float) if probability is None else probability.astype(float)
    span = score.max() - score.min()
    score = (score - score.min()) / (span if span > 0 else 1.0)
    order = np.sort(score[truth])
    everything = np.sort(score.ravel())
    # at each threshold: predicted elements, and those of them within the truth
    predicted = everything.size - np.searchsorted(everything, POLYP_THRESHOLDS, side="left")
    common = order.size - np.searchsorted(order, POLYP_THRESHOLDS, side="left")
    total = predicted + truth.sum()
    hit = common > 0  # no common element scores 0, also where both are empty
    dice = np.where(hit, 2 * common / np.maximum(total, 1), 0.0)
    iou = np.where(hit, common / np.maximum(total - common, 1), 0.0)
    return {"mdice": float(dice.mean()), "miou": float(iou.mean())}


_TRANSUNET_RULES = (
    "slices stacked to volumes; DSC and HD95 in voxels, not mm (MedPy without spacing: 95th percentile of both "
    "directions' distances pooled); a structure predicted where there is none scores DSC 1 and HD95 0, one missing "
    "from the prediction (or from both) DSC 0 and HD95 0; averaged over cases, then structures"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="transunet",
            source="TransUNet's released test code, by which the Synapse and ACDC tables of later papers are made",
            statement=_TRANSUNET_RULES,
            columns={"dice": "DSC (%)", "hd95": "HD95 (voxels)"},
            percent=frozenset({"dice"}),
            measure=_transunet,
        ),
        Protocol(
            name="levit-unet",
            source="LeViT-UNet, section 4.2 (slices stacked 'following [23]', which is TransUNet); no evaluation code "
            "was released. Its 'HD in mm' stands beside TransUNet's 31.69, which is that code's HD95 in voxels",
            statement=_TRANSUNET_RULES,
            columns={"dice": "DSC (%)", "hd95": "'HD' (voxels)"},
            percent=frozenset({"dice"}),
            measure=_transunet,
        ),
        Protocol(
            name="unet2022-em",
            source="UNet-2022, section 4.5 and Fig. 3; its evaluation code was not released",
            statement="IoU of the structure's probability above each of the thresholds 0.50, 0.55 … 0.95, averaged "
            "over thresholds, then images; an image where neither has the structure scores 1",
            columns={"miou": "mIoU (%)", "iou_at_0.5": "IoU at 0.5 (%)"},
            percent=frozenset({"miou", "iou_at_0.5"}),
            measure=_em,
            needs_probabilities=True,
        ),
        Protocol(
            name="isic",
            source="TransFuse's released test code for ISIC 2017 (Table 2)",
            statement="masks resized to 192 x 256; per image Dice 2(I + s)/(P + T + s), IoU (I + s)/(U + s) with "
            "s = 0.001, and pixel accuracy; averaged over images",
            columns={"dice": "Dice", "iou": "Jaccard", "accuracy": "accuracy"},
            measure=_isic,
        ),
        Protocol(
            name="polyp",
            source="PraNet's evaluation, which TransFuse's polyp table (Table 1) follows through its references",
            statement="each image's probabilities stretched to 0 … 1, Dice and IoU at 256 thresholds (at least the "
            "threshold is foreground; no common pixel scores 0), averaged over thresholds and images; labels alone "
            "stand in as probabilities of 0 and 1",
            columns={"mdice": "mDice", "miou": "mIoU"},
            measure=_polyp,
        ),
    )
}
