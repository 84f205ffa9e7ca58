import math

import pytest
import torch

from nnunetv2_levit.trainers.boundary_weighted_loss import BoundaryWeightedLoss, boundary_weight, one_vs_rest_logits
from nnunetv2_levit.trainers.multi_scale import rescaled


def loss(regions=False, ignore_label=None):
    return BoundaryWeightedLoss(regions=regions, ignore_label=ignore_label)


def test_the_weight_by_hand():
    """A row of 40 pixels whose right half is foreground; the window reaches 15 pixels and counts zeros beyond."""
    mask = torch.zeros(1, 1, 1, 40)
    mask[..., 20:] = 1
    weight = boundary_weight(mask)[0, 0, 0]
    # the window is 31 x 31 and the image one row high: of 961 places at most 31 lie inside
    assert weight[0].item() == pytest.approx(1)  # sees columns 0 to 15
    assert weight[19].item() == pytest.approx(1 + 5 * 15 / 961)  # sees 20 to 34
    assert weight[20].item() == pytest.approx(1 + 5 * (1 - 16 / 961))  # sees itself and 21 to 35
    assert weight[39].item() == pytest.approx(1 + 5 * (1 - 16 / 961))


def test_two_classes_by_hand():
    """Two pixels, one of them foreground: the paper's loss of the difference of the two logits."""
    logits = torch.tensor([[[[0.5, 1.0]], [[0.5, 2.0]]]])  # differences 0 and 1
    target = torch.tensor([[[[0.0, 1.0]]]])
    outside, inside = 1 + 5 / 961, 1 + 5 * (1 - 1 / 961)  # the foreground pixel is in both windows
    p = 1 / (1 + math.exp(-1))
    entropy = (outside * math.log(2) + inside * -math.log(p)) / (outside + inside)
    intersection, total = inside * p, outside * 0.5 + inside * (p + 1)
    iou = (intersection + 1) / (total - intersection + 1)
    assert loss()(logits, target).item() == pytest.approx(entropy + 1 - iou, rel=1e-5)
    regions = loss(regions=True)(logits[:, 1:] - logits[:, :1], target)
    assert regions.item() == pytest.approx(entropy + 1 - iou, rel=1e-5)


def test_one_against_the_rest_is_the_softmax():
    logits = 5 * torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(torch.sigmoid(one_vs_rest_logits(logits)), logits.softmax(1)[:, 1:])
    extreme = torch.tensor([[1e4, -1e4, 0.0]]).view(1, 3, 1, 1).requires_grad_()
    value = loss()(extreme, torch.ones(1, 1, 1, 1))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(extreme.grad).all()


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_pixels_have_no_say(regions):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 1, 20, 24)).float()
    ignored = torch.zeros_like(labels, dtype=torch.bool)
    ignored[:, :, :7] = True
    if regions:
        masks = torch.cat([labels > 0, labels > 1], dim=1).float()
        target = torch.cat([torch.where(ignored, 0.0, masks), ignored.float()], dim=1)
        other = torch.cat([torch.where(ignored, 1.0, masks), ignored.float()], dim=1)
    else:
        target = other = labels.masked_fill(ignored, 3)
    logits = torch.randn(2, 2 if regions else 3, 20, 24, requires_grad=True)
    value = loss(regions, 3)(logits, target)
    value.backward()
    assert logits.grad[:, :, :7].abs().max() == 0
    assert logits.grad[:, :, 7:].abs().sum() > 0
    torch.testing.assert_close(loss(regions, 3)(logits, other), value)
    # nothing ignored: the loss without an ignore label
    unmarked = torch.cat([masks, torch.zeros_like(labels)], dim=1) if regions else labels
    torch.testing.assert_close(loss(regions, 3)(logits, unmarked), loss(regions)(logits, masks if regions else labels))


def test_a_better_segmentation_has_a_lower_loss_and_all_ignored_is_finite():
    labels = torch.zeros(1, 1, 32, 32)
    labels[:, :, 8:20, 8:20] = 2
    right = 20 * torch.nn.functional.one_hot(labels[:, 0].long(), 3).permute(0, 3, 1, 2).float()
    assert loss()(right, labels) < 0.05 < loss()(torch.zeros_like(right), labels) < loss()(right.roll(1, 1), labels)
    assert torch.isfinite(loss(ignore_label=3)(right, torch.full_like(labels, 3)))


def test_half_precision_logits_are_computed_in_fp32():
    labels = torch.randint(0, 3, (1, 1, 16, 16)).float()
    logits = 100 * torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.float16):
        half = loss()(logits.half(), labels)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss()(logits.half().float(), labels))


def test_rescaling_a_batch():
    data, target = torch.randn(2, 1, 96, 64), torch.randint(0, 3, (2, 1, 96, 64)).short()
    assert rescaled(data, target, 1.0)[0] is data
    images, labels = rescaled(data, [target, target], 1.25)
    assert images.shape == (2, 1, 128, 64)  # 120 and 80, rounded to multiples of 32
    assert [label.shape for label in labels] == [images.shape] * 2
    assert labels[0].dtype == torch.int16
    assert set(labels[0].unique().tolist()) <= {0, 1, 2}
