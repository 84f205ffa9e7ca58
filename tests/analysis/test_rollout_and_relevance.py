"""Rollout against a written-out product, relevance against a case by hand, gradients against autograd's own."""

import numpy as np
import pytest
import torch

from nnunetv2_levit.analysis.recording import recorded
from nnunetv2_levit.analysis.relevance import (
    differentiate,
    propagate,
    relevance_of_layers,
    weighted_by_gradient,
    weighted_layer,
)
from nnunetv2_levit.analysis.rollout import attention_rollout, roll_out, rows_of_structure
from nnunetv2_levit.analysis.transformer_blocks import transformer_blocks
from nnunetv2_levit.network_architectures import create


def test_rollout_is_the_written_out_product():
    first = np.array([[0.9, 0.1], [0.2, 0.8]])
    second = np.array([[0.5, 0.5], [0.0, 1.0]])
    # 0.5 A + 0.5 I of each: [[.95, .05], [.1, .9]] and [[.75, .25], [0, 1]]
    expected = np.array([[0.75 * 0.95 + 0.25 * 0.1, 0.75 * 0.05 + 0.25 * 0.9], [0.1, 0.9]])
    assert roll_out([first, second]) == pytest.approx(expected)


def test_rollout_passes_a_subsampling_as_it_is():
    first = np.array([[0.5, 0.5], [0.5, 0.5]])
    subsampling = np.array([[0.25, 0.75]])
    # rows of the first: [.75, .25] and [.25, .75]
    assert roll_out([first, subsampling]) == pytest.approx(np.array([[0.25 * 0.75 + 0.75 * 0.25, 0.625]]))


def test_rows_of_rollout_sum_to_one_on_levits_grids():
    torch.manual_seed(0)
    network = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(96, 80)).eval()
    _, layers = recorded(network, transformer_blocks(network), torch.randn(1, 96, 80))
    matrix = attention_rollout(layers)
    assert matrix.shape == (2 * 2, 6 * 5)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(4))
    assert rows_of_structure(matrix, np.array([0.0, 3, 1, 0])) == pytest.approx((3 * matrix[1] + matrix[2]) / 4)
    assert rows_of_structure(matrix, np.zeros(4)) is None


def test_relevance_of_two_blocks_by_hand():
    """Two tokens, one head in the first block and two in the second."""
    weights = np.array([[[0.5, 0.5], [0.25, 0.75]]])
    gradient = np.array([[[2.0, -1.0], [4.0, 0.0]]])
    first = weighted_by_gradient(weights, gradient)
    assert first == pytest.approx(np.array([[1, 0], [1, 0]]))  # the negative product is left out
    two_heads = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    gradients = np.array([[[2.0, 9.0], [9.0, 2.0]], [[9.0, 4.0], [-4.0, 9.0]]])
    second = weighted_by_gradient(two_heads, gradients)
    assert second == pytest.approx(np.array([[1, 2], [0, 1]]))
    # R1 = I + A1 = [[2, 0], [1, 1]]; R2 = R1 + A2 R1 = [[2, 0], [1, 1]] + [[4, 2], [1, 1]]
    assert propagate([first, second]) == pytest.approx(np.array([[6, 2], [2, 2]]))


def test_relevance_after_a_subsampling():
    first = np.array([[1.0, 0.0], [0.0, 3.0]])
    subsampling = np.array([[0.5, 2.0]])
    assert propagate([first, subsampling]) == pytest.approx(np.array([[1, 8]]))


NETWORKS = ("transunet_1block", "levit_unet_128s", "unet2022_tiny")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_of_the_weights_is_that_of_attention_written_out(name, monkeypatch):
    """Fused attention has no weights to differentiate; a version with them in the graph gives the same gradient."""
    torch.manual_seed(0)
    options = {} if name == "transunet_1block" else {"blocks": 1}
    network = create(name, in_channels=1, num_classes=2, image_size=(64, 64), **options).eval()
    for parameter in network.parameters():  # LeViT's branches start at zero
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim == 1 else None
    blocks = transformer_blocks(network)
    image = torch.randn(1, 64, 64)
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:30, 20:50] = True
    found = {
        layer.block.name: layer.weights_gradient() for layer in differentiate(network, blocks, image, head=1, mask=mask)
    }

    written_out = []

    def attention(query, key, value, attn_mask=None, dropout_p=0.0):
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
        weights.retain_grad()
        written_out.append(weights)
        return weights @ value

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    network(image[None])[0, 1][torch.from_numpy(mask)].sum().backward()
    expected = dict(zip(found, written_out, strict=True))
    for block, gradient in found.items():
        reference = expected[block].grad.reshape(gradient.shape)
        assert torch.allclose(gradient, reference, atol=1e-4 * float(reference.abs().max())), block


def test_differentiating_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    network = create("transunet_1block", in_channels=1, num_classes=2, image_size=(64, 64)).eval()
    mask = np.ones((64, 64), dtype=bool)
    layers = differentiate(network, transformer_blocks(network), torch.randn(1, 64, 64), head=0, mask=mask)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert weighted_layer(layers[0]).shape == (1, 16, 16)
    assert (weighted_layer(layers[0]) >= 0).all()
    assert np.diag(relevance_of_layers(layers)).min() >= 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
