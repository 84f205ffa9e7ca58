"""Attention written by hand, whose distance, entropy and place in the image are known."""

import numpy as np
import pytest

from nnunetv2_levit.analysis.distances import attention_distance, attention_entropy, outside_share
from nnunetv2_levit.analysis.token_grids import TokenGrid, global_tokens, token_shares, window_tokens
from nnunetv2_levit.network_architectures.unet2022.window_attention import shift_mask


def shifted_windows(grid, window, shift, padded=None, stride=4):
    padded = padded or grid
    mask = shift_mask(padded, window, shift).numpy() if any(shift) else None
    return window_tokens(grid, stride=stride, window=window, padded=padded, shift=shift, mask=mask)


GRIDS = {
    "all tokens": global_tokens((3, 5), stride=16),
    "LeViT's subsampling": global_tokens((5, 7), stride=16, query_stride=2),
    "windows": shifted_windows((4, 6), (2, 3), (0, 0)),
    "shifted windows": shifted_windows((6, 9), (2, 3), (1, 1)),
    "shifted windows on a padded map": shifted_windows((5, 8), (2, 3), (1, 1), padded=(6, 9)),
}


def left_neighbours(tokens: TokenGrid):
    """Weights that copy each query's left neighbour, or itself where that is out of reach, and whether it was found."""
    groups, queries = tokens.queries.shape
    weights = np.zeros((groups, 1, queries, tokens.keys.shape[1]))
    found = np.zeros((groups, queries), dtype=bool)
    for group in range(groups):
        keys = {tuple(centre): k for k, centre in enumerate(tokens.key_centres[group])}
        for query in range(queries):
            row, column = tokens.query_centres[group, query]
            left = keys.get((row, column - tokens.stride))
            if left is not None and tokens.allowed is not None and not tokens.allowed[group, query, left]:
                left = None
            found[group, query] = left is not None
            weights[group, 0, query, keys[row, column] if left is None else left] = 1
    return weights, found


def test_uniform_attention_on_14_x_14_tokens_of_16_pixels_reaches_116_pixels():
    tokens = global_tokens((14, 14), stride=16)
    distance = attention_distance(tokens.uniform(), tokens)
    assert distance.shape == (1,)
    assert distance[0] == pytest.approx(116.5, abs=0.05)
    assert attention_entropy(tokens.uniform(), tokens)[0] == pytest.approx(np.log(196))


@pytest.mark.parametrize("name", GRIDS)
def test_attention_that_copies_its_left_neighbour(name):
    """It measures one token to the left, and is drawn there: in windows and on LeViT's grids too."""
    tokens = GRIDS[name]
    weights, found = left_neighbours(tokens)
    inside = tokens.queries_inside
    assert found[inside].any()
    share = found[inside].mean()
    assert attention_distance(weights, tokens)[0] == pytest.approx(share * tokens.stride)
    assert attention_distance(weights, tokens, spacing=(3.0, 0.5))[0] == pytest.approx(share * tokens.stride * 0.5)
    assert attention_entropy(weights, tokens)[0] == 0
    for row in range(tokens.query_grid[0]):
        for column in range(tokens.query_grid[1]):
            place = np.array([row, column]) * tokens.query_stride
            group, number = tokens.locate(tuple((place + 0.5) * tokens.stride))
            drawn = tokens.key_map(weights[group, 0, number], group)
            (looked_at,) = np.argwhere(drawn == 1)
            assert tuple(looked_at) == (place[0], place[1] - found[group, number])


def test_a_shifted_window_lies_where_its_tokens_were_before_the_roll():
    tokens = GRIDS["shifted windows"]
    group, number = tokens.locate((5.5 * 4, 0.5 * 4))  # the last row, first column: rolled in from the other side
    seen = ~np.isnan(tokens.key_map(np.ones(6), group))
    assert set(map(tuple, np.argwhere(seen))) == {(r, c) for r in (5, 0) for c in (0, 7, 8)}
    assert tokens.allowed[group, number].sum() == 1
    assert tokens.uniform()[group, 0, number].max() == 1


def test_the_padding_asks_nothing_and_is_not_drawn():
    tokens = GRIDS["shifted windows on a padded map"]
    assert tokens.queries_inside.sum() == 5 * 8
    assert tokens.all_keys_map(np.ones(tokens.keys.shape)).shape == (5, 8)
    assert tokens.all_keys_map(np.ones(tokens.keys.shape)).sum() == 5 * 8


def test_levits_subsampling_asks_at_every_second_token():
    tokens = GRIDS["LeViT's subsampling"]
    assert tokens.query_grid == (3, 4)
    assert tokens.query_centres[0, 1].tolist() == [8, 40]
    assert tokens.uniform().shape == (1, 1, 12, 35)


def test_tokens_belong_to_a_structure_by_the_share_that_it_covers():
    mask = np.zeros((8, 6), dtype=bool)
    mask[:4, :6] = True
    assert token_shares(mask, (2, 2), 4).tolist() == [[1, 0.5], [0, 0]]


def test_the_share_of_attention_that_leaves_a_structure():
    tokens = global_tokens((1, 4), stride=4)
    mask = np.zeros((4, 16), dtype=bool)
    mask[:, :8] = True  # the first two tokens
    first_half = np.zeros((1, 1, 4, 4))
    first_half[0, 0, :, 0] = 1
    assert outside_share(first_half, tokens, mask)[0] == 0
    assert outside_share(tokens.uniform(), tokens, mask)[0] == 0.5
    weights = np.zeros((1, 1, 4, 4))
    weights[0, 0, 0] = [0.5, 0.25, 0.25, 0]
    weights[0, 0, 1] = [0, 0, 0.5, 0.5]
    weights[0, 0, 2:] = 0.25
    assert outside_share(weights, tokens, mask)[0] == pytest.approx((0.25 + 1) / 2)
    assert outside_share(weights, tokens, np.zeros((4, 16), dtype=bool)) is None
