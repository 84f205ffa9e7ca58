import pytest
import torch
from torch import nn

from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm, norm_channels


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_under_autocast_it_stays_in_its_precision_with_exact_statistics(dtype):
    torch.manual_seed(0)
    norm, reference = LayerNorm(64), nn.LayerNorm(64).double()
    nn.init.normal_(norm.weight)
    reference.load_state_dict(norm.state_dict())
    x = 100 + torch.randn(3, 5, 64)  # a sum of squares that fp16 can't hold
    with torch.autocast("cpu", dtype=dtype):
        out = norm(x.to(dtype))
    assert out.dtype == dtype
    expected = reference(x.to(dtype).double())
    torch.testing.assert_close(out.double(), expected, rtol=0.01, atol=0.02)


def test_without_autocast_it_is_torchs():
    norm, reference = LayerNorm(8, eps=1e-3), nn.LayerNorm(8, eps=1e-3)
    x = torch.randn(2, 8, 4, 3)
    expected = reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm_channels(norm, x), expected, rtol=0, atol=0)
