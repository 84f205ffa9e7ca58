import copy

import pytest
import torch
from torch import nn

from nnunetv2_levit.inference.backends import halve_weights
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.folding import fold_batch_norm
from tests.network_architectures.test_contract import randomise

# one of each family
FAMILIES = ("levit_unet_128s", "unet2022_tiny", "transfuse_s", "transunet_1block", "unetr2d_1block")


def half_autocast():
    return torch.autocast("cpu", dtype=torch.half)


@pytest.mark.parametrize("name", FAMILIES)
def test_fp16_weights_give_what_autocast_gives(name):
    torch.manual_seed(0)
    folded = fold_batch_norm(randomise(create(name, in_channels=1, num_classes=3, image_size=(48, 32))))
    halved = halve_weights(copy.deepcopy(folded))
    x = torch.randn(2, 1, 48, 32)
    with torch.inference_mode(), half_autocast():
        assert torch.equal(halved(x), folded(x))
    layers = [module for module in halved.modules() if type(module) in (nn.Conv2d, nn.Linear)]
    assert layers and all(layer.weight.dtype == torch.half for layer in layers)


def test_what_autocast_leaves_in_fp32_stays_so():
    network = create("levit_unet_128s", in_channels=1, num_classes=3, image_size=(48, 32))
    halved = halve_weights(fold_batch_norm(network))
    attention = halved.encoder.stages[0].blocks[0].attn
    assert attention.attention_biases.dtype == attention.precomputed_bias.dtype == torch.float32
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.InstanceNorm2d(2, affine=True), nn.LayerNorm(2), nn.GroupNorm(1, 2))
    assert all(value.dtype != torch.half for value in halve_weights(norms).state_dict().values())


class Standardised(nn.Conv2d):
    """Uses its weight in another way than as a convolution's kernel."""


def test_weights_of_a_subclass_stay_in_fp32():
    assert halve_weights(Standardised(1, 1, 3)).weight.dtype == torch.float32
