"""The rules of the contract that are checked on numbers: one function each, which says what is wrong.

A rule is a function of a `Subject` that returns what it saw, in a few words. It raises `BrokenRuleError` with reason
and remedy, or `RemarkError` where nnU-Net works all the same. `check.py` runs them in the order of `RULES`; a network
that fails by itself breaks the rule.
"""

import torch
from torch import nn

from nnunetv2_levit.any_network.shapes import outputs_of
from nnunetv2_levit.network_check.conversions import compiled, copies, onnx, several_gpus
from nnunetv2_levit.network_check.rule import BrokenRuleError, NotCheckedError, RemarkError, Rule, close
from nnunetv2_levit.network_check.subject import CLASSES, Subject, calibrated, images, randomised

SMALL = (32, 48)  # half precision is slow on a CPU
LARGE_VALUES = 1e3
OTHER_SIZE = (96, 128)
SEGMENTATION_HEADS = ".seg_layers."  # as nnunetv2.run.load_pretrained_weights has it


def channels_and_classes(subject: Subject) -> str:
    """Any number of image channels and classes."""
    for channels, classes in ((3, 2), (4, 7)):
        remedy = "hand the number of channels and of classes to the first and the last layer"
        try:
            network = subject.build(channels=channels, classes=classes).eval()
            with torch.no_grad():
                logits = network(images(1, channels=channels))
        except Exception as error:
            raise BrokenRuleError(
                f"{channels} channels and {classes} classes make it fail ({error})", remedy
            ) from error
        if logits.shape[1] != classes:
            raise BrokenRuleError(f"{classes} classes give {logits.shape[1]} channels of logits", remedy)
    return "1, 3 and 4 channels; 2, 4 and 7 classes"


def _head_parameters(subject: Subject, network: nn.Module) -> list[nn.Parameter]:
    """Parameters of ``network`` whose shape depends on the number of classes."""
    other = {name: value.shape for name, value in subject.build(classes=CLASSES + 1).named_parameters()}
    return [value for name, value in network.named_parameters() if other.get(name, value.shape) != value.shape]


def logits(subject: Subject) -> str:
    """Logits without a non-linearity after them: nnU-Net's loss and its prediction apply softmax or sigmoid."""
    network = randomised(subject.build()).eval()
    with torch.no_grad():
        head = _head_parameters(subject, network)
        for parameter in head:
            parameter.mul_(100)
        values = torch.cat([network(images(2, seed=seed)) for seed in range(2)])
    remedy = "return what the last convolution gives: nnU-Net applies softmax or sigmoid itself"
    low, high = values.min().item(), values.max().item()
    if low >= 0 and high <= 1:
        sums_to_one = torch.allclose(values.sum(1), torch.ones_like(values[:, 0]), atol=1e-3)
        raise BrokenRuleError(f"all values lie in [0, 1], as after {'softmax' if sums_to_one else 'sigmoid'}", remedy)
    if low >= 0 or high <= 0:
        after = "positive, as after ReLU" if low >= 0 else "negative, as after log-softmax"
        raise BrokenRuleError(f"all values are {after}", remedy)
    if low >= -1 and high <= 1 and head:
        raise BrokenRuleError("all values lie in [-1, 1] whatever the last weights, as after tanh", remedy)
    return "of both signs and unbounded"


def each_image_alone(subject: Subject) -> str:
    """An image's logits do not depend on what else is in the batch: prediction runs other batches than training."""
    network = randomised(subject.build()).eval()
    batch = images(3)
    with torch.no_grad():
        if not close(network(batch)[1:2], network(batch[1:2])):
            raise BrokenRuleError(
                "in evaluation an image's logits depend on the other images of the batch",
                "take no mean or maximum over the batch's axis; batch norm needs track_running_stats=True",
            )
    return "alone and in a batch, the same"


def repeatable(subject: Subject) -> str:
    """In evaluation the same image gives the same logits."""
    network = randomised(subject.build()).eval()
    batch = images(1)
    with torch.no_grad():
        if not close(network(batch), network(batch)):
            raise BrokenRuleError(
                "in evaluation the same image gives other logits at the second call",
                "use nn.Dropout instead of F.dropout(x), or hand training=self.training to it; keep no state",
            )
    return "twice the same"


def deep_supervision(subject: Subject) -> str:
    """nnU-Net trains with deep supervision and predicts without: one state dict, and outputs that fit."""
    on, off = subject.build(deep_supervision=True).eval(), subject.build().eval()
    if list(on.state_dict()) != list(off.state_dict()):
        raise BrokenRuleError("the state dict depends on deep supervision", "build the same modules in any case")
    with torch.no_grad():
        outputs = on(images(2))
        on.decoder.deep_supervision = False
        full = on(images(2))
    if not isinstance(outputs, list) or not close(outputs[0], full):
        raise BrokenRuleError("the first output is not the logits of full resolution", "return those first")
    return f"{len(outputs) - 1} output{'s' if len(outputs) > 2 else ''} with a weight, none of them 0/0"


def gradients(subject: Subject) -> str:
    """Every parameter receives a gradient: training on several GPUs stops at one that does not."""
    network = subject.build_trained().train()
    outputs = outputs_of(network(images(2))).values()
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    without = [
        name.removeprefix("network.")
        for name, value in network.named_parameters()
        if value.requires_grad and value.grad is None
    ]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise BrokenRuleError(
            f"{without[0]}{more} receive{'s' if not more else ''} no gradient",
            "remove what the forward pass does not use, or leave it out with --set",
        )
    return "every parameter receives one"


def half_precision(subject: Subject) -> str:
    """fp16 and bf16 autocast stay finite at large inputs, in training and evaluation."""
    size = subject.fitting(SMALL)
    large = LARGE_VALUES * images(2, image_size=size)
    network = calibrated(subject.build(image_size=size), large)
    for dtype in (torch.float16, torch.bfloat16):
        for train in (True, False):
            with torch.autocast("cpu", dtype=dtype), torch.no_grad():
                values = network.train(train)(large)
            if not torch.isfinite(values).all():
                raise BrokenRuleError(
                    f"{str(dtype).removeprefix('torch.')} in {'training' if train else 'evaluation'} gives values that "
                    f"are not finite for inputs of {LARGE_VALUES:.0e}",
                    "normalise before products, and keep exponentials, softmax and squares in fp32: x.float()",
                )
    return f"fp16 and bf16 are finite at inputs of {LARGE_VALUES:.0e}"


def nan(subject: Subject) -> str:
    """A NaN in the image reaches the logits: nnU-Net would take a swallowed one for background."""
    network = randomised(subject.build()).eval()
    broken = images(1)
    broken[0, 0, 20:24, 20:24] = float("nan")
    with torch.no_grad():
        if not torch.isnan(network(broken)).any():
            raise BrokenRuleError(
                "a NaN in the image gives finite logits, so that a broken image or overflow goes unseen",
                "leave out nan_to_num, and masks that multiply by a comparison",
            )
    return "a NaN reaches the logits"


def _with_another_shape(network: nn.Module, other: nn.Module) -> list[str]:
    """Names in the state dict of ``network`` that have another shape, or do not exist, in that of ``other``."""
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    return [name for name, value in network.state_dict().items() if shapes.get(name) != value.shape]


def pretrained_weights(subject: Subject) -> str:
    """nnU-Net's ``-pretrained_weights`` leaves out what has ``.seg_layers.`` in its name, and stops at any other weight
    of another shape."""
    network = subject.build()
    try:
        heads = _with_another_shape(network, subject.build(classes=CLASSES + 1))
        resized = hasattr(network, "adapt_state_dict")  # by this package's loader of -pretrained_weights
        tables = [] if resized else _with_another_shape(network, subject.build(image_size=subject.fitting(OTHER_SIZE)))
    except Exception as error:  # another rule says so
        raise NotCheckedError("it can't be built for other classes and sizes") from error
    if not heads:
        raise NotCheckedError("no weight depends on the number of classes")
    prefix = "network." if subject.is_direct else ""  # the adapter's own, which plans then do not name
    heads = [name.removeprefix(prefix) for name in heads]
    if others := [name for name in heads if SEGMENTATION_HEADS not in name]:
        raise RemarkError(
            f"the segmentation head {others[0]} has no {SEGMENTATION_HEADS} in its name: -pretrained_weights takes it "
            "over with the rest, and stops where the pretrained model has other classes",
            "keep the last layers in self.decoder.seg_layers = nn.ModuleList(…) for such models",
        )
    if tables:
        raise RemarkError(
            f"{tables[0].removeprefix(prefix)} depends on the patch size: -pretrained_weights stops where the "
            "pretrained model has another patch",
            "pretrain with the same --patch, or interpolate the table in forward",
        )
    return f"-pretrained_weights leaves {heads[0]} out, whatever the classes"


def other_weights(subject: Subject) -> str:
    """Nothing that was computed from weights survives other weights: nnU-Net loads fold after fold in evaluation."""
    first, second = (randomised(subject.build(seed=seed), seed=seed + 1).eval() for seed in (1, 2))
    batch = images(1)
    with torch.no_grad():
        expected = second(batch)
        first(batch)
        first.load_state_dict(second.state_dict())
        if not close(first(batch), expected):
            raise BrokenRuleError(
                "after load_state_dict in evaluation the logits are not those of the new weights",
                "keep no cache of what follows from weights, register what is trained as a parameter or buffer, or "
                "clear the cache in a load_state_dict hook",
            )
    return "other weights in evaluation give their own logits"


RULES: dict[str, Rule] = {
    "channels and classes": channels_and_classes,
    "logits": logits,
    "gradients": gradients,
    "half precision": half_precision,
    "nan": nan,
    "repeatable": repeatable,
    "deep supervision": deep_supervision,
    "each image alone": each_image_alone,
    "copies": copies,
    "several GPUs": several_gpus,
    "other weights": other_weights,
    "pretrained weights": pretrained_weights,
    "compile": compiled,
    "onnx": onnx,
}
COMPARING = ("deep supervision", "each image alone", "copies", "several GPUs", "other weights", "compile", "onnx")
"""Rules that compare logits of two calls, which only a repeatable network makes possible."""
