import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunetv2_levit.network_architectures.layers.attention_bias import (
    BIAS_POLICIES,
    expand_attention_bias,
    expand_relative_position_bias,
    resize_attention_bias_table,
)


def table(heads, height, width):
    return torch.arange(heads * height * width, dtype=torch.float64).view(heads, height * width)


@pytest.mark.parametrize("stride", [1, 2])
def test_expansion_by_hand(stride):
    grid = (3, 4)
    values = table(2, *grid)
    bias = expand_attention_bias(values, table_grid=grid, key_grid=grid, query_stride=stride)
    queries = [(y, x) for y in range(0, 3, stride) for x in range(0, 4, stride)]
    keys = [(y, x) for y in range(3) for x in range(4)]
    assert bias.shape == (2, len(queries), len(keys))
    for i, (qy, qx) in enumerate(queries):
        for j, (ky, kx) in enumerate(keys):
            assert torch.equal(bias[:, i, j], values[:, abs(qy - ky) * 4 + abs(qx - kx)])


@pytest.mark.parametrize("policy", BIAS_POLICIES)
@pytest.mark.parametrize("new", [(4, 9), (14, 14), (7, 32), (1, 1)])
def test_the_bias_of_a_token_to_itself_survives_every_resize(policy, new):
    old = torch.randn(3, 14 * 14, dtype=torch.float64)
    resized = resize_attention_bias_table(old, old_grid=(14, 14), new_grid=new, policy=policy)
    assert resized.shape == (3, new[0] * new[1])
    torch.testing.assert_close(resized[:, 0], old[:, 0])
    assert resized.min() >= old.min() - 1e-12  # linear and clamped: never outside what was trained
    assert resized.max() <= old.max() + 1e-12


def test_extend_keeps_distances_and_repeats_the_farthest():
    resized = resize_attention_bias_table(table(1, 2, 3), old_grid=(2, 3), new_grid=(3, 5), policy="extend")
    expected = [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5]]
    assert resized.view(3, 5).tolist() == expected


def test_scale_keeps_distances_relative_to_the_image():
    resized = resize_attention_bias_table(table(1, 1, 4), old_grid=(1, 4), new_grid=(1, 8), policy="scale")
    assert resized.flatten().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    resized = resize_attention_bias_table(table(1, 1, 4), old_grid=(1, 4), new_grid=(1, 2), policy="scale")
    assert resized.flatten().tolist() == [0, 2]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="policy 'nearest'"):
        resize_attention_bias_table(table(1, 2, 2), old_grid=(2, 2), new_grid=(3, 3), policy="nearest")
    with pytest.raises(ValueError, match="4 offsets"):
        resize_attention_bias_table(table(1, 2, 2), old_grid=(3, 3), new_grid=(3, 3))


def test_what_was_computed_on_shapes_alone_leaves_no_constant_behind():
    """Fake tensors have no numbers: one that was kept would spoil each later call in the process."""
    window = (5, 9)  # of no other test: nothing is kept for it yet
    table = torch.rand(9 * 17, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        expand_relative_position_bias(table, window=window)
    bias = expand_relative_position_bias(table, window=window)
    # of the query in row 1, column 2 and the key in row 4, column 8: rows -3 + 4, columns -6 + 8 of the table
    assert torch.equal(bias[:, 1 * 9 + 2, 4 * 9 + 8], table[1 * 17 + 2])
