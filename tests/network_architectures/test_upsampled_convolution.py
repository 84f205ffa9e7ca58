import pickle

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_levit.network_architectures.layers import upsampled_convolution
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import (
    Source,
    UpsampledConv2d,
    pays,
    resize,
    upsample,
)

CASES = {  # sizes of each source, its own first; all end alike
    "doubled": [((7, 5), (14, 10))],
    "odd rectangle": [((6, 9), (13, 17))],
    "from one pixel": [((1, 1), (2, 3))],
    "smaller": [((9, 8), (5, 6))],
    "one axis only": [((4, 6), (8, 6))],
    "chained": [((4, 4), (8, 8), (16, 16), (14, 14), (28, 28))],
    "several resolutions": [
        ((14, 14), (28, 28)),
        ((7, 7), (14, 14), (28, 28)),
        ((4, 4), (8, 8), (16, 16), (14, 14), (28, 28)),
    ],
    "with one at full resolution": [((7, 5), (14, 10)), ((14, 10),)],
}


def reference(module, sources):
    x = torch.cat([resize(source) for source in sources], dim=1)
    return F.conv2d(x, module.weight, module.bias, padding=module.padding)


def build(case, *, kernel=3, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    channels = [3 + index for index in range(len(CASES[case]))]
    module = UpsampledConv2d(channels, 4, kernel, bias=bias).to(dtype)
    sources = [
        Source(torch.randn(2, c, *sizes[0], dtype=dtype), sizes[1:] or sizes)
        for c, sizes in zip(channels, CASES[case], strict=True)
    ]
    return module, sources


@pytest.fixture
def always(monkeypatch):
    """Mix before upsampling wherever there is one, whatever it costs."""
    monkeypatch.setattr(upsampled_convolution, "pays", lambda source, *_: len(set(source.grids())) > 1)


kernels = pytest.mark.parametrize("kernel", [1, 3])


@kernels
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_upsampling_first(always, case, bias, kernel):
    module, sources = build(case, kernel=kernel, bias=bias)
    with torch.no_grad():
        expected = reference(module, sources)
        torch.testing.assert_close(module(sources), expected, rtol=1e-12, atol=1e-12)
        module.precompute()
        torch.testing.assert_close(module(sources), expected, rtol=1e-12, atol=1e-12)


@kernels
@pytest.mark.parametrize("case", ["odd rectangle", "several resolutions", "with one at full resolution"])
def test_gradients_are_those_of_upsampling_first(always, case, kernel):
    module, sources = build(case, kernel=kernel)
    leaves = [*module.parameters(), *(source.map.requires_grad_() for source in sources)]
    seed = torch.randn_like(reference(module, sources))
    torch.testing.assert_close(
        torch.autograd.grad(module(sources), leaves, seed),
        torch.autograd.grad(reference(module, sources), leaves, seed),
    )


def test_training_after_a_prediction_in_inference_mode(always):
    """Matrices cached by the prediction are saved for the backward pass of the training."""
    module, sources = build("doubled")
    sources = [Source(source.map, ((15, 11),)) for source in sources]  # a size that no other test has cached
    with torch.inference_mode():
        module(sources)
    module(sources).sum().backward()
    assert module.weight.grad is not None


@kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_the_dtype_of_the_activation(always, dtype, kernel):
    module, sources = build("several resolutions", kernel=kernel, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        out = module(sources)
        assert upsample(out, (9, 9)).dtype == dtype  # autocast would have it in fp32
        with torch.enable_grad():
            assert upsample(out.requires_grad_(), (9, 9)).dtype == dtype
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), reference(module, sources).detach(), rtol=0.05, atol=0.05)


@kernels
def test_compiles_to_one_graph_without_leaving_fake_tensors(always, kernel):
    torch._dynamo.reset()
    module, sources = build("several resolutions", kernel=kernel)
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(sources), reference(module, sources))
        smaller = [Source(source.map[:1], (*source.sizes[:-1], (20, 24))) for source in sources]
        torch.testing.assert_close(compiled(smaller), reference(module, smaller))
        torch.export.export(module, (sources,))
        torch.testing.assert_close(module(sources), reference(module, sources))


def test_the_state_dict_is_a_convolutions_and_precomputing_leaves_it():
    module, _ = build("doubled")
    keys = list(torch.nn.Conv2d(3, 4, 3).state_dict())
    assert list(module.state_dict()) == keys
    module.precompute()
    assert list(pickle.loads(pickle.dumps(module)).state_dict()) == keys


def test_the_rule_mixes_first_where_that_saves_arithmetic():
    assert pays(Source(torch.empty(1, 704, 28, 28), ((56, 56),)), 256)
    assert not pays(Source(torch.empty(1, 704, 56, 56), ((56, 56),)), 256)
    assert not pays(Source(torch.empty(1, 704, 55, 55), ((56, 56),)), 256)
    assert not pays(Source(torch.empty(1, 16, 112, 112), ((224, 224),)), 16)  # the contractions would cost more


def test_a_pointwise_kernel_goes_first_where_the_map_grows_and_its_channels_do_not():
    coarse, fine = torch.empty(1, 16, 28, 28), torch.empty(1, 16, 56, 56)
    assert pays(Source(coarse, ((56, 56),)), 16, 1)
    assert not pays(Source(coarse, ((56, 56),)), 17, 1)
    assert not pays(Source(fine, ((28, 28),)), 16, 1)
    assert not pays(Source(fine), 16, 1)


def test_a_kernel_of_another_size_is_refused():
    with pytest.raises(ValueError, match="1 or 3, not 5"):
        UpsampledConv2d([3], 4, 5)
