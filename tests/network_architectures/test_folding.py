import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from timm.layers import StdConv2d, StdConv2dSame
from timm.models.resnet import BasicBlock
from torch import nn

from nnunetv2_levit.network_architectures import FAMILIES, REGISTRY
from nnunetv2_levit.network_architectures.folding import fold_batch_norm, folded_if_the_same
from tests.network_architectures.test_contract import build, build_shallow, randomise


def batch_norms(network):
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def same_function(network, x):
    network = randomise(network).double().eval()
    x = x.double()
    with torch.no_grad():
        expected = network(x)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        folded = fold_batch_norm(network)
        # random weights make large logits of small ones, which cancel
        torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-11 * max(1, expected.abs().max().item()))
        torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="no other weights"):
        folded.load_state_dict(before)
    return copy.deepcopy(folded)


# what is left out is the same modules as another, in greater number
LEFT_OUT = [name for family in FAMILIES if family.others == "deeper" for name in family.not_smallest]


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in LEFT_OUT])
def test_folding_keeps_the_function_of_every_network(name):
    folded = same_function(build_shallow(name), torch.randn(2, 1, 64, 48))
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    if name.startswith("levit"):
        assert batch_norms(folded) == 0
    if name.startswith("transfuse"):
        assert batch_norms(folded) == 3  # those before the first convolution of each fusion's residual block
    assert not any(isinstance(module, StdConv2d) for module in folded.modules())
    if name.startswith("unet2022"):
        assert not any(name.endswith("gamma") for name in folded.state_dict())


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
def test_nnunets_own_blocks_with_batch_norm_are_folded(architecture):
    depths = {"n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage": [2, 2]}
    network = architecture(
        input_channels=1,
        n_stages=2,
        features_per_stage=[8, 16],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2],
        num_classes=2,
        n_conv_per_stage_decoder=[1],
        conv_bias=True,
        norm_op=nn.BatchNorm2d,
        dropout_op=nn.Dropout2d,
        dropout_op_kwargs={"p": 0.1},
        nonlin=nn.LeakyReLU,
        **depths,
    )
    assert batch_norms(network) > 0
    assert batch_norms(same_function(network, torch.randn(1, 1, 32, 32))) == 0


def test_a_residual_block_of_timms_is_folded():
    block = BasicBlock(8, 8)
    assert batch_norms(same_function(block, torch.randn(1, 8, 8, 8))) == 0


def test_kernels_are_standardised_once_where_the_padding_is_fixed():
    network = nn.Sequential(
        StdConv2d(6, 8, 3, stride=2, padding=2, dilation=2, groups=2, bias=True),
        StdConv2d(8, 8, 1),
        StdConv2dSame(8, 4, 3, stride=2),
    )
    folded = same_function(network, torch.randn(2, 6, 11, 10))
    assert [type(module) for module in folded] == [nn.Conv2d, nn.Conv2d, StdConv2dSame]


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv1(self.bn1(x))


@pytest.mark.parametrize(
    "network",
    [
        PreActivation(),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
    ],
    ids=["pre-activation", "activation between", "batch statistics"],
)
def test_a_norm_that_can_not_be_folded_stays(network):
    assert batch_norms(same_function(network, torch.randn(2, 4, 8, 8))) == 1


class SharedConvolution(nn.Module):
    """One convolution, with a norm of its own in each of its two places."""

    def __init__(self):
        super().__init__()
        convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Sequential(convolution, nn.BatchNorm2d(4))
        self.second = nn.Sequential(convolution, nn.BatchNorm2d(4))

    def forward(self, x):
        return self.second(self.first(x))


class NormUsedAgain(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up = nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), self.norm)

    def forward(self, x):
        return self.norm(self.up(self.block(x)))


class KeepsWhatIsBetween(nn.Sequential):
    """Runs a sequential module child by child, and adds up what each returns."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))

    def forward(self, x):
        total = 0
        for layer in self[0]:
            x = layer(x)
            total = total + x
        return total


def with_spectral_norm():
    return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))


@pytest.mark.parametrize("make", [SharedConvolution, NormUsedAgain, with_spectral_norm])
def test_what_is_used_in_several_places_or_changed_by_hooks_stays(make):
    network = make()
    assert batch_norms(same_function(network, torch.randn(2, 4, 8, 8))) == batch_norms(network)


@pytest.mark.parametrize("make", [KeepsWhatIsBetween, lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))])
def test_a_network_of_others_is_folded_where_that_changes_nothing(make):
    network, x = randomise(make()).eval(), torch.randn(2, 4, 8, 8)
    result = folded_if_the_same(network, x)
    assert batch_norms(result) == isinstance(network, KeepsWhatIsBetween)
    with torch.no_grad():
        torch.testing.assert_close(result(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_folded_network_takes_other_sizes_than_it_was_built_for():
    network = randomise(build("levit_unet_128s", image_size=(96, 64))).double().eval()
    folded = fold_batch_norm(network)
    assert folded.encoder.stages[0].blocks[0].attn.precomputed_bias is not None
    for size in ((96, 64), (64, 64)):
        x = torch.randn(1, 1, *size, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(folded(x), network(x))
