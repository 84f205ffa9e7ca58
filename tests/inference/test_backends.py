import copy

import pytest
import torch
from torch import nn

from nnunetv2_levit.inference.backends import TorchBackend, halve_weights, precision
from nnunetv2_levit.inference.onednn import OneDnnLinear, is_available
from nnunetv2_levit.network_architectures import FAMILIES, create
from nnunetv2_levit.network_architectures.folding import fold_batch_norm
from tests.network_architectures.test_contract import randomise

# Not 48 x 32: in half precision oneDNN with AMX computes wrongly what a convolution of stride 2 makes of a 3 x 2 map.
SIZE = (64, 48)
SMALLEST = [family.smallest[0] for family in FAMILIES]


def half_autocast():
    return torch.autocast("cpu", dtype=torch.half)


@pytest.mark.parametrize("name", SMALLEST)
def test_fp16_weights_give_what_autocast_gives(name):
    torch.manual_seed(0)
    folded = fold_batch_norm(randomise(create(name, in_channels=1, num_classes=3, image_size=SIZE)))
    halved = halve_weights(copy.deepcopy(folded))
    x = torch.randn(2, 1, *SIZE)
    with torch.inference_mode(), half_autocast():
        assert torch.equal(halved(x), folded(x))
    layers = [module for module in halved.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert layers
    assert all(layer.weight.dtype == torch.half for layer in layers)


def test_what_autocast_leaves_in_fp32_stays_so():
    network = create("levit_unet_128s", in_channels=1, num_classes=3, image_size=SIZE)
    halved = halve_weights(fold_batch_norm(network))
    attention = halved.encoder.stages[0].blocks[0].attn
    assert attention.attention_biases.dtype == attention.precomputed_bias.dtype == torch.float32
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.InstanceNorm2d(2, affine=True), nn.LayerNorm(2), nn.GroupNorm(1, 2))
    assert all(value.dtype != torch.half for value in halve_weights(norms).state_dict().values())


class Standardised(nn.Conv2d):
    """Uses its weight in another way than as a convolution's kernel."""


def test_weights_of_a_subclass_stay_in_fp32():
    assert halve_weights(Standardised(1, 1, 3)).weight.dtype == torch.float32


@pytest.mark.parametrize("name", SMALLEST)
def test_the_copy_for_a_cpu_computes_what_the_network_does(name):
    torch.manual_seed(0)
    network = randomise(create(name, in_channels=1, num_classes=3, image_size=SIZE)).eval()
    backend = TorchBackend(network, device=torch.device("cpu"))
    for batch in (1, 3):
        x = torch.randn(batch, 1, *SIZE)
        with torch.inference_mode():
            expected = network(x)
        torch.testing.assert_close(backend(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    linears = [module for module in backend.network.modules() if isinstance(module, nn.Linear)]
    assert all(isinstance(linear, OneDnnLinear) for linear in linears) == is_available()
    assert not any(isinstance(module, OneDnnLinear) for module in network.modules())


@pytest.mark.gpu
@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_copy_for_a_gpu_is_as_exact_as_the_network_under_autocast(name, compiled):
    """Both against float64: how far half precision is off depends on the network, and most on TransUNet's norms."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    network = randomise(create(name, in_channels=1, num_classes=3, image_size=SIZE)).eval().to(device)
    exact = copy.deepcopy(network).double()
    backend = TorchBackend(network, device=device, compiled=compiled)
    for batch in (1, 3):
        x = torch.randn(batch, 1, *SIZE, device=device)
        with torch.inference_mode():
            expected = exact(x.double())
            with precision(device):
                errors = [(compute(x) - expected).norm() / expected.norm() for compute in (network, backend)]
        assert errors[1] <= 2 * errors[0] + 1e-3


@pytest.mark.skipif(not is_available(), reason="this torch has no oneDNN linear layers")
@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednns_linear_layer(shape, bias):
    linear, x = nn.Linear(24, 10, bias=bias), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(OneDnnLinear(linear)(x), linear(x))
        if len(shape) > 2:
            torch.testing.assert_close(OneDnnLinear(linear)(x.transpose(0, 1)), linear(x.transpose(0, 1)))
