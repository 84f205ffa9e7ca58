"""The contract of every registered network; a new network is covered by being in the registry."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import FAMILIES, REGISTRY, create

SIZES = [(32, 32), (40, 56), (96, 96), (112, 112), (224, 256), (320, 320), (512, 512), (97, 131)]
# Deeper or wider members of classes whose smallest member takes every test: these take those that could tell.
LARGE = [name for family in FAMILIES if family.others != "wider" for name in family.not_smallest]
# These differ from the smallest member of their class by widths alone, once at as many blocks.
WIDE = [name for family in FAMILIES if family.others == "wider" for name in family.not_smallest]
OWN = tuple(REGISTRY)  # a network of another package need not have blocks
networks = pytest.mark.parametrize("name", [name for name in REGISTRY if name not in LARGE])
all_networks = pytest.mark.parametrize("name", REGISTRY)
one_of_each_class = pytest.mark.parametrize("name", [name for name in REGISTRY if name not in LARGE + WIDE])


def build(name, *, in_channels=1, num_classes=4, image_size=(64, 64), seed=0, **options):
    torch.manual_seed(seed)
    return create(name, in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options)


def fewest_blocks(name):
    """The option for as few blocks a stage as hold every kind of module: UNet-2022's second has the shifted windows.

    One is enough where wider blocks than a smaller network's are all that differs.
    """
    if name not in OWN or name.endswith(("_1block", "_conv")):
        return {}
    return {"blocks": 2 if name.startswith("unet2022") and name not in WIDE else 1}


def build_shallow(name, **options):
    """The network of the fewest blocks."""
    return build(name, **fewest_blocks(name), **options)


def shapes(name, **options):
    """Names and shapes of the state dict, without the cost of the numbers."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build(name, **options).state_dict().items()}


def randomise(network):
    """Leave no parameter at a special value, such as norms that start at zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).uniform_(-0.09, 0.09))  # normal numbers take far longer
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, id=f"{name}-{size[0]}x{size[1]}")
        for name in REGISTRY
        for size in (SIZES[-1:] if name in LARGE else SIZES)
    ],
)
def test_any_size_gives_logits_of_that_size(name, size, monkeypatch):
    only_shapes = name in WIDE and min(size) > 200  # there the smallest of their class computes numbers
    if only_shapes:
        for place in (torch, torch.amp):  # autocast knows no meta device
            monkeypatch.setattr(place, "autocast", lambda *_, **__: nullcontext())
        monkeypatch.setattr("timm.layers.fast_norm.is_autocast_enabled", lambda _: False)
    with torch.device("meta" if only_shapes else "cpu"), torch.no_grad():
        logits = build(name, image_size=size).eval()(torch.randn(1, 1, *size))
    assert logits.shape == (1, 4, *size)
    assert only_shapes or torch.isfinite(logits).all()


@networks
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channel_count(name, channels):
    network = build_shallow(name, in_channels=channels, num_classes=2).eval()
    with torch.no_grad():
        assert network(torch.randn(2, channels, 64, 64)).shape == (2, 2, 64, 64)


@networks
def test_a_wrong_channel_count_is_one_sentence(name):
    with pytest.raises(UserError, match=r"built for images of shape \(B, 1, H, W\) and got \(2, 3, 64, 64\)"):
        build_shallow(name)(torch.randn(2, 3, 64, 64))


@networks
def test_each_image_of_a_batch_is_segmented_by_itself(name):
    network = randomise(build_shallow(name)).double().eval()
    x = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


@all_networks
def test_deep_supervision_switches_the_output_and_never_the_state_dict(name):
    supervised = build_shallow(name, auxiliary_heads=True)
    keys = list(supervised.state_dict())
    assert set(shapes(name, **fewest_blocks(name))) < set(keys)
    with torch.device("meta"):
        assert not build(name).deep_supervision
    x = torch.randn(2, 1, 64, 64)
    supervised.eval()
    with torch.no_grad():
        supervised.deep_supervision = True
        outputs = supervised(x)
        supervised.deep_supervision = False
        full = supervised(x)
    assert list(supervised.state_dict()) == keys
    torch.testing.assert_close(outputs[0], full)
    assert [o.shape[-1] / 64 for o in outputs] == list(supervised.deep_supervision_scales)


@all_networks
def test_segmentation_heads_are_named_as_nnunet_expects(name):
    few, many = shapes(name, num_classes=2), shapes(name, num_classes=5)
    differing = [key for key in few if few[key] != many[key]]
    assert differing
    assert all(".seg_layers." in key for key in differing)


@networks
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_autocast_with_large_inputs_stays_finite(name, dtype, training):
    network = build(name, image_size=(32, 48)).train(training)  # small: half precision is slow on a CPU
    x = 1e3 * torch.randn(2, 1, 32, 48)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        assert torch.isfinite(network(x)).all()


@one_of_each_class
def test_compiles_to_one_graph(name):
    torch._dynamo.reset()
    network = randomise(build_shallow(name)).eval()
    x = torch.randn(2, 1, 64, 64)
    # eager backend: what is tested is that tracing meets no graph break; no C compiler is needed
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))


@networks
def test_pickling_and_deepcopy_keep_the_function(name):
    network = randomise(build_shallow(name)).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(pickle.loads(pickle.dumps(network))(x), expected)
        torch.testing.assert_close(copy.deepcopy(network)(x), expected)


@networks
def test_nothing_cached_survives_loading_other_weights(name):
    """nnU-Net loads fold after fold into one network in eval mode."""
    first, second = (randomise(build_shallow(name, seed=seed)).eval() for seed in (1, 2))
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = first(x)
        first.load_state_dict(second.state_dict())
        torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)
        assert not torch.allclose(before, second(x))
        reference = copy.deepcopy(second).double()
        torch.testing.assert_close(first.to(torch.float64)(x.double()), reference(x.double()), rtol=0, atol=0)


@networks
def test_same_weights_in_any_memory_format(name):
    network = randomise(build_shallow(name)).double().eval()
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "levit_unet_385"}, "not registered"),
        ({"image_size": (16, 64)}, "16, 64"),
        ({"image_size": (64, 2048)}, "64, 2048"),
        ({"in_channels": 0}, "0"),
        ({"num_classes": 0}, "at least one"),
    ],
)
def test_impossible_requests_are_refused_with_a_sentence(arguments, words):
    request = {"name": "levit_unet_128s", "in_channels": 1, "num_classes": 2, "image_size": (64, 64)} | arguments
    with pytest.raises(UserError, match=words):
        create(request.pop("name"), **request)
