import pytest
import torch
from torch import nn

from nnunetv2_levit.network_architectures.layers import depthwise_convolution
from nnunetv2_levit.network_architectures.layers.depthwise_convolution import DepthwiseConv2d


def gradients(module: nn.Conv2d, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and the gradients of a weighted sum of it, with respect to the input, the weights and the bias."""
    x = x.clone().requires_grad_()
    output = module(x)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    wanted = [x, *module.parameters()]
    return [output, *torch.autograd.grad((output.float() * weights).sum(), wanted)]


@pytest.mark.parametrize(("kernel", "size"), [((7, 7), (9, 5)), ((3, 5), (4, 4)), ((7, 7), (2, 1))])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_torchs(kernel, size, bias):
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    plain = nn.Conv2d(6, 6, kernel, padding=padding, groups=6, bias=bias).double()
    ours = DepthwiseConv2d.of(plain)
    assert all(p is q for p, q in zip(plain.parameters(), ours.parameters(), strict=True))
    x = torch.randn(3, 6, *size, dtype=torch.double)
    for got, expected in zip(gradients(ours, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # the weights' gradient is summed in float32


def test_under_autocast_the_weights_gradient_is_summed_in_float32():
    torch.manual_seed(0)
    ours = DepthwiseConv2d(4, 4, 7, padding=3, groups=4)
    x = torch.randn(8, 4, 12, 12)
    *_, exact, _ = gradients(ours, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, *_, got, _ = gradients(ours, x)
    assert output.dtype == torch.bfloat16
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


def test_large_maps_and_passes_without_gradient_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(depthwise_convolution, "_DepthwiseConvolution", None)
    ours = DepthwiseConv2d(2, 2, 3, padding=1, groups=2)
    assert ours(torch.zeros(1, 2, 40, 40)).shape == (1, 2, 40, 40)
    with torch.no_grad():
        assert ours(torch.zeros(1, 2, 4, 4)).shape == (1, 2, 4, 4)
