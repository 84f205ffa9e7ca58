"""The adapter as nnU-Net's stock trainers use it, with one output and with deep supervision."""

import numpy as np
import pytest
import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.any_network.adaptation import find_adaptation
from nnunetv2_levit.any_network.adapter import AdaptedNetwork, strides_of_scales
from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.errors import UserError
from tests.network_check import broken_networks as nets

ARGUMENTS = {"in_channels": "{channels}", "num_classes": "{classes}"}
SHARED = {**ARGUMENTS, "image_size": "{image_size}"}


def adapted(class_name="Good", *, image_size=(40, 56), deep_supervision=True, arguments=None, **options):
    return AdaptedNetwork(
        1,
        3,
        network=f"{nets.__name__}.{class_name}",
        arguments=ARGUMENTS if arguments is None else arguments,
        image_size=image_size,
        deep_supervision=deep_supervision,
        **options,
    )


def stock_weights(strides):
    """Scales and weights as nnUNetTrainer computes them from the plans' strides."""
    scales = [list(scale) for scale in 1 / np.cumprod(np.vstack(strides), axis=0)][:-1]
    weights = np.array([1 / 2**index for index in range(len(scales))])
    weights[-1] = 0
    return scales, weights / weights.sum()


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (1.0, 0.25, 0.125), (1.0, 1.0, 1.0)], ids=str)
def test_stock_trainers_compute_the_scales_and_no_weight_is_zero_by_zero(scales):
    found, weights = stock_weights(strides_of_scales(scales))
    assert [scale[0] for scale in found] == [*scales, scales[-1]]
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    assert (weights[:-1] > 0).all()


def test_one_output_is_trained_with_the_whole_weight():
    network = adapted()
    scales, weights = stock_weights(strides_of_scales((1.0,)))
    outputs = network(torch.randn(2, 1, 40, 56))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 40, 56)] * len(scales)
    targets = [torch.randint(3, (2, 40, 56)) for _ in scales]
    loss = DeepSupervisionWrapper(nn.CrossEntropyLoss(), weights)(outputs, targets)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(outputs[0], targets[0]))
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_nnunets_switch_changes_the_output_and_never_the_state_dict():
    network = adapted().eval()
    keys = list(network.state_dict())
    assert all(key.startswith("network.") for key in keys)
    x = torch.randn(1, 1, 40, 56)
    with torch.no_grad():
        first = network(x)[0]
        network.decoder.deep_supervision = False
        torch.testing.assert_close(network(x), first)
    assert list(network.state_dict()) == keys == list(adapted(deep_supervision=False).state_dict())


def test_a_network_of_ours_keeps_its_heads():
    strides = strides_of_scales((1.0, 0.25, 0.125))
    network = AdaptedNetwork(
        1, 3, network="levit_unet_128s", arguments={**SHARED, "auxiliary_heads": True}, image_size=(40, 56),
        strides=strides,
    )  # fmt: skip
    x = torch.randn(2, 1, 40, 56)
    assert [tuple(output.shape[2:]) for output in network(x)] == [(40, 56), (10, 14), (5, 7), (5, 7)]
    network.decoder.deep_supervision = False
    assert network(x).shape == (2, 3, 40, 56)
    with pytest.raises(UserError, match="the strides of the adapted network"):
        AdaptedNetwork(
            1, 3, network="levit_unet_128s", arguments={**SHARED, "auxiliary_heads": True}, image_size=(40, 56)
        )


def test_images_are_padded_and_logits_cropped():
    network = adapted("MultiplesOf16", size_multiple=16, smallest_size=64, deep_supervision=False).eval()
    seen = []
    network.network.register_forward_hook(lambda _, arguments, __: seen.append(tuple(arguments[0].shape)))
    x = torch.randn(1, 1, 40, 72)
    with torch.no_grad():
        logits = network(x)
        whole = network.network(nn.functional.pad(x, (0, 8, 0, 24)))
    assert seen[0] == (1, 1, 64, 80)
    assert logits.shape == (1, 3, 40, 72)
    torch.testing.assert_close(logits, whole[:, :, :40, :72])


def test_a_network_of_a_fixed_size_is_built_for_the_padded_one():
    arguments = {**ARGUMENTS, "img_size": "{image_size}"}
    network = adapted("FixedSize", arguments=arguments, size_multiple=32, deep_supervision=False)
    assert network.network.position.shape == (8, 64, 64)
    assert network(torch.randn(1, 1, 40, 56)).shape == (1, 3, 40, 56)


def test_a_registered_network_takes_its_weights_at_another_patch_size_and_others_take_none():
    whole, small = (
        AdaptedNetwork(1, 3, network="levit_unet_128s", arguments={**SHARED, "blocks": 1}, image_size=size)
        for size in ((64, 96), (32, 64))
    )
    state = small.adapt_state_dict(whole.state_dict(), image_size=(64, 96))
    small.load_state_dict(state)
    assert any(value.shape != state[name].shape for name, value in whole.state_dict().items())
    assert not hasattr(adapted(), "adapt_state_dict")


def test_one_of_several_outputs():
    network = adapted("ListOfOutputs", output=1, deep_supervision=False)
    assert network(torch.randn(1, 1, 40, 56)).shape == (1, 3, 40, 56)


def test_nnunet_builds_it_from_plans():
    keywords = {
        "network": f"{nets.__name__}.Good",
        "arguments": ARGUMENTS,
        "image_size": [40, 56],
        "strides": strides_of_scales((1.0,)),
    }
    network = get_network_from_plans(ADAPTER, keywords, [], 2, 5, allow_init=True, deep_supervision=False)
    assert network(torch.randn(1, 2, 40, 56)).shape == (1, 5, 40, 56)
    assert convert_dim_to_conv_op(2) in {type(module) for module in network.modules()}


def test_the_adapter_adapts_no_adapter():
    with pytest.raises(UserError, match="adapts no adapter"):
        AdaptedNetwork(
            1, 2, network=ADAPTER, image_size=(40, 56),
            arguments={"input_channels": "{channels}", "num_classes": "{classes}", "image_size": [40, 56],
                       "network": f"{nets.__name__}.Good", "arguments": {"in_channels": 1, "num_classes": 2}},
        )  # fmt: skip


def test_a_missing_package_is_one_sentence():
    with pytest.raises(UserError, match="needs the package segmentation_models_torch, which is not installed"):
        AdaptedNetwork(1, 2, network="segmentation_models_torch.Unet", arguments={}, image_size=(40, 56))


# network, what the adapter has to do, sizes that fail without
NEEDS = [
    ("Good", (1, 1, None), set()),
    ("MultiplesOf16", (16, 1, None), {(97, 131), (40, 56)}),
    ("ListOfOutputs", (1, 1, 1), set()),
]


@pytest.mark.parametrize(("name", "needs", "failing"), NEEDS, ids=[row[0] for row in NEEDS])
def test_what_the_adapter_has_to_do_is_found_on_shapes(name, needs, failing):
    network = NetworkOfAnySize(lambda _: getattr(nets, name)(1, 4), takes_image_size=False)
    found = find_adaptation(network)
    assert (found.size_multiple, found.smallest_size, found.output) == needs
    assert set(found.failures) == failing


def test_a_network_that_needs_a_larger_image():
    class FourPoolings(nets.Good):
        def forward(self, images):
            x = nn.functional.max_pool2d(self.features(images), 32)
            assert min(x.shape[2:]) > 1
            return self.head(nn.functional.interpolate(x, scale_factor=32))

    found = find_adaptation(NetworkOfAnySize(lambda _: FourPoolings(1, 4), takes_image_size=False))
    assert (found.size_multiple, found.smallest_size) == (32, 64)
    assert found.padded((32, 97)) == (64, 128)


def test_what_no_padding_mends_is_refused():
    network = NetworkOfAnySize(lambda _: nets.QuarterResolution(1, 4), takes_image_size=False)
    with pytest.raises(UserError, match="images of 256x256 give 4x64x64"):
        find_adaptation(network)


# what is built for an image size, the patch, what the adapter has to do
OF_ONE_SIZE = {
    "the patch itself": (lambda _: nets.FixedSize(1, 4, (96, 96)), (96, 96), (1, 1)),
    "any square": (lambda size: nets.SquareSide(1, 4, side_of(size)), (40, 40), (1, 1)),
    "squares of multiples of 16": (lambda size: nets.SquareSide(1, 4, sixteenth(side_of(size))), (40, 40), (16, 1)),
}


def side_of(size):
    if size[0] != size[1]:
        raise UserError(f"{size[0]}x{size[1]} is no square")
    return size[0]


def sixteenth(side):
    if side % 16:
        raise UserError(f"{side} is no multiple of 16")
    return side


@pytest.mark.parametrize("case", OF_ONE_SIZE)
def test_networks_that_run_for_the_patch_or_for_squares_alone(case):
    build, patch, needs = OF_ONE_SIZE[case]
    fixed = case == "the patch itself"
    network = NetworkOfAnySize(build, takes_image_size=not fixed, squares_only=not fixed)
    found = find_adaptation(network, sizes=(patch,))
    assert (found.size_multiple, found.smallest_size, found.squares_only) == (*needs, not fixed)
    if not fixed:
        with pytest.raises(UserError, match="is no square"):
            find_adaptation(network, sizes=((40, 56),))


class Modes(nets.Good):
    """Returns its outputs by two functions of the logits, one for training and one for evaluation."""

    def __init__(self, training, evaluation):
        super().__init__(1, 4)
        self.modes = {True: training, False: evaluation}

    def forward(self, images):
        return self.modes[self.training](super().forward(images))


HALF = nn.AvgPool2d(2)
# training, evaluation, the output that the adapter takes or words of the refusal
MODES = {
    "lists and a tensor": (lambda x: [HALF(x), x], lambda x: x, 1),
    "a tensor and a tuple": (lambda x: x, lambda x: (x, HALF(x)), 0),
    "coarse in evaluation": (lambda x: x, HALF, "give 4x128x128 in evaluation"),
    "another place": (lambda x: [HALF(x), x], lambda x: [x], "another output in evaluation"),
}


@pytest.mark.parametrize("case", MODES)
def test_training_and_evaluation_both_give_the_logits(case):
    training, evaluation, expected = MODES[case]
    network = NetworkOfAnySize(lambda _: Modes(training, evaluation), takes_image_size=False)
    if isinstance(expected, int):
        assert find_adaptation(network, sizes=((64, 64),)).output == expected
        return
    with pytest.raises(UserError, match=expected):
        find_adaptation(network, sizes=((256, 256),))
