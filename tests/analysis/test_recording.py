"""Recording changes no bit of the output, leaves nothing behind, and records what the network computes."""

import numpy as np
import pytest
import torch

from nnunetv2_levit.analysis.gates import recorded_gates
from nnunetv2_levit.analysis.recording import recorded, recording
from nnunetv2_levit.analysis.token_grids import global_tokens
from nnunetv2_levit.analysis.transformer_blocks import transformer_blocks
from nnunetv2_levit.analysis.transformer_share import transformer_share
from nnunetv2_levit.network_architectures import FAMILIES, create

SMALLEST = [family.smallest[0] for family in FAMILIES]
SIZE = (64, 80)


@pytest.fixture(scope="module")
def networks():
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = create(name, in_channels=2, num_classes=3, image_size=SIZE).eval()
        return made[name]

    return make


@pytest.fixture
def image():
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SMALLEST)
def test_outputs_are_the_same_to_the_bit_and_rows_sum_to_one(networks, image, name):
    network = networks(name)
    blocks = transformer_blocks(network)
    with torch.no_grad():
        before = network(image[None])[0]
    during, layers = recorded(network, blocks, image)
    with torch.no_grad():
        after = network(image[None])[0]
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert [layer.block.name for layer in layers] == [block.name for block in blocks]  # also the order of the pass
    for layer in layers:
        assert torch.allclose(layer.weights.sum(-1), torch.ones(()), atol=1e-5)
        groups, _, queries, keys = layer.scores.shape
        assert layer.tokens.queries.shape == (groups, queries)
        assert layer.tokens.keys.shape == (groups, keys)
        places = layer.tokens.query_centres[layer.tokens.queries_inside]
        assert len(np.unique(places, axis=0)) == len(places)  # no token twice
        assert (places.max(axis=0) <= np.array(SIZE) + layer.block.stride).all()


@pytest.mark.parametrize("name", SMALLEST)
def test_nothing_is_left_behind(networks, image, name):
    network = networks(name)
    before = {key: set(module.__dict__) for key, module in network.named_modules()}
    with recording(network, transformer_blocks(network), gradients=True), recorded_gates(network):
        network(image[None])
    with pytest.raises(RuntimeError), recording(network, transformer_blocks(network)):
        raise RuntimeError
    assert {key: set(module.__dict__) for key, module in network.named_modules()} == before
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("name", ["transunet_1block", "levit_unet_128s", "unet2022_tiny"])
def test_with_gradients_the_outputs_are_the_same_too(networks, image, name):
    network = networks(name)
    plain = network(image[None])
    with recording(network, transformer_blocks(network), gradients=True):
        watched = network(image[None])
    assert torch.equal(plain, watched)


def test_one_image_is_held_at_a_time(networks):
    network = networks("transunet_1block")
    with pytest.raises(ValueError, match="one image at a time"), recording(network, transformer_blocks(network)):
        network(torch.zeros(2, 2, *SIZE))


@pytest.mark.parametrize("name", ["transunet_1block", "levit_unet_128s", "unet2022_tiny"])
def test_weights_times_values_are_what_the_network_attended_to(networks, image, name):
    network = networks(name)
    with recording(network, transformer_blocks(network), gradients=True) as recorder:
        network(image[None])
    for layer in recorder.finished():
        assert torch.allclose(layer._grouped(layer.attended.detach()), layer.weights @ layer.value, atol=1e-4)


def test_a_hand_built_network_copies_its_left_neighbour(networks, image):
    """The whole way: LeViT's learned biases say where to look, and that is what is recorded and where."""
    torch.manual_seed(0)
    network = create("levit_unet_128s", in_channels=2, num_classes=2, image_size=SIZE).eval()
    block = next(b for b in transformer_blocks(network) if "subsampling" in b.title)
    rows, columns = 4, 5
    with torch.no_grad():
        block.attention.attention_biases.fill_(-1e4).view(-1, rows, columns)[:, 0, 1] = 1e4  # |dy| = 0, |dx| = 1
        _, layers = recorded(network, [block], image)
    tokens, weights = layers[0].tokens, layers[0].weights[0].double().numpy()
    assert tokens.grid == global_tokens((rows, columns), stride=16).grid
    for query in range(6):
        row, column = tokens.query_centres[0, query] / 16 - 0.5
        drawn = tokens.key_map(weights[0, query], 0)
        neighbours = {(row, c) for c in (column - 1, column + 1) if 0 <= c < columns}
        assert {tuple(place) for place in np.argwhere(drawn > 1e-6)} == neighbours


def test_every_kind_of_gate_is_recorded_between_0_and_1(networks, image):
    network = networks("transfuse_s")
    with recorded_gates(network) as gates, torch.no_grad():
        network(image[None])
    assert [gate.kind for gate in gates].count("spatial") == 3
    assert [gate.kind for gate in gates].count("channel") == 3
    assert [gate.kind for gate in gates].count("attention") == 2
    for gate in gates:
        assert gate.values.ndim == (1 if gate.kind == "channel" else 2)
        assert 0 < gate.values.min() < gate.values.max() < 1
        assert gate.numbers()["percentile_5"] <= gate.numbers()["mean"] <= gate.numbers()["percentile_95"]
    first = network.fusions[0].cnn_gate
    x = torch.randn(1, 256, 4, 5)
    with torch.no_grad(), recorded_gates(first) as own:
        output = first(x)
    assert torch.allclose(output, x * torch.from_numpy(own[0].values))


def test_branch_norms_are_those_of_the_two_branches(networks, image):
    network = networks("unet2022_tiny")
    block = transformer_blocks(network)[0]
    seen = {}
    block.attention.register_forward_hook(lambda _, __, output: seen.__setitem__("attention", output.norm().item()))
    _, (layer,) = recorded(network, [block], image)
    block.attention._forward_hooks.clear()
    assert layer.branch_norms["attention"] == pytest.approx(seen["attention"], rel=1e-5)
    assert layer.branch_norms["convolution"] > 0
    _, (global_layer,) = recorded(networks("transunet_1block"), transformer_blocks(networks("transunet_1block")), image)
    assert global_layer.branch_norms == {}


def test_the_share_of_the_transformer_by_hand():
    network = create("transunet_1block", in_channels=1, num_classes=2, image_size=(32, 32)).eval()
    blocks = transformer_blocks(network)
    share = transformer_share(network, blocks, torch.zeros(1, 32, 32))
    width, hidden, tokens = 768, 3072, 4
    qkv, proj = 3 * width * (width + 1), width * (width + 1)
    mlp, norms = width * hidden * 2 + hidden + width, 4 * width
    assert share["parameters"]["attention"] == qkv + proj
    assert share["parameters"]["transformer_blocks"] == qkv + proj + mlp + norms
    products = 2 * tokens * tokens * width
    assert share["multiply_adds"]["transformer_blocks"] == tokens * (4 * width**2 + 2 * width * hidden) + products
    outside = 1 - share["parameters"]["transformer_blocks"] / sum(p.numel() for p in network.parameters())
    assert share["parameters"]["share_outside_the_transformer"] == pytest.approx(outside)


def test_networks_without_attention_have_no_blocks():
    conv = create("levit_unet_128s_conv", in_channels=1, num_classes=2, image_size=(32, 32))
    assert transformer_blocks(conv) == []
    assert transformer_blocks(torch.nn.Conv2d(1, 1, 1)) == []
