"""LeViT's attention: learned biases, batch norm after each linear layer, and queries on every second token.

The linear layers are timm's, with timm's names. The attention is ours: timm's keeps a copy of the expanded bias in eval
mode that survives ``load_state_dict`` (folds 1 to 4 of an ensemble would run with the bias of fold 0), and it sizes its
token grid by rounding down where the strided convolutions round up.
"""

import torch
from timm.models.levit import LinearNorm
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.attention_bias import (
    PRECOMPUTED_BIAS_LIMIT,
    biased_attention,
    expand_attention_bias,
)
from nnunetv2_levit.network_architectures.layers.attention_observer import AttentionObserver
from nnunetv2_levit.network_architectures.layers.grids import Grid


class Attention(nn.Module):
    """Multi-head attention with LeViT's bias, (B, N, C) -> (B, N', out); N' < N where ``query_stride`` is 2.

    With ``identity=True`` every token attends to itself alone: the value and output projections stay, while queries,
    keys and biases, which then receive no gradient, are left out.
    """

    precomputed_bias: Tensor | None
    observer: AttentionObserver | None = None

    def __init__(
        self,
        *,
        width: int,
        out_width: int,
        heads: int,
        key_dim: int,
        ratio: int,
        grid: Grid,
        query_stride: int = 1,
        residual: bool = True,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = heads, key_dim, ratio * key_dim
        self.grid, self.query_stride, self.identity = grid, query_stride, identity
        values, keys = self.value_dim * heads, key_dim * heads
        if identity:
            self.v = LinearNorm(width, values)
        else:
            if query_stride == 1:
                self.qkv = LinearNorm(width, values + 2 * keys)
            else:
                self.kv = LinearNorm(width, values + keys)
                self.q = nn.Sequential()
                self.q.add_module("ln", LinearNorm(width, keys))
            self.attention_biases = nn.Parameter(torch.zeros(heads, grid[0] * grid[1]))
        self.proj = nn.Sequential()
        self.proj.add_module("act", nn.Hardswish())
        # timm starts the projection of a residual branch at zero, the subsampling one (no residual) at one
        self.proj.add_module("ln", LinearNorm(values, out_width, bn_weight_init=0 if residual else 1))

        self.register_buffer("precomputed_bias", None, persistent=False)

    def _bias(self, grid: Grid) -> Tensor:
        if self.precomputed_bias is not None and grid == self.grid:
            return self.precomputed_bias
        return expand_attention_bias(
            self.attention_biases, table_grid=self.grid, key_grid=grid, query_stride=self.query_stride
        )

    def precompute(self) -> None:
        """Keep the bias expanded for the grid built for, where it is small (see `fold_batch_norm`)."""
        tokens = self.grid[0] * self.grid[1]
        if not self.identity and self.heads * tokens**2 <= PRECOMPUTED_BIAS_LIMIT:
            self.precomputed_bias = self._bias(self.grid).detach()

    def _at_queries(self, x: Tensor, grid: Grid) -> Tensor:
        if self.query_stride == 1:
            return x
        batch, _, width = x.shape
        x = x.view(batch, *grid, width)[:, :: self.query_stride, :: self.query_stride]
        return x.reshape(batch, -1, width)

    def attend_to_itself(self, x: Tensor, grid: Grid) -> Tensor:
        """The output if every token attended to itself alone, (B, N, C) -> (B, N', out), by the trained projections."""
        if self.identity:
            return self(x, grid)
        batch, tokens, _ = x.shape
        projected = self.qkv(x) if self.query_stride == 1 else self.kv(x)
        value = projected.view(batch, tokens, self.heads, -1)[..., -self.value_dim :].flatten(2)
        return self.proj(self._at_queries(value, grid))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        batch, tokens, _ = x.shape
        if self.identity:
            return self.proj(self._at_queries(self.v(x), grid))
        bias = self._bias(grid)
        precision = torch.promote_types(bias.dtype, torch.float32)  # that of `biased_attention`: one copy, not three
        if self.query_stride == 1:
            qkv = self.qkv(x).to(precision).view(batch, tokens, self.heads, -1).transpose(1, 2)
            query, key, value = qkv.split([self.key_dim, self.key_dim, self.value_dim], dim=3)
        else:
            kv = self.kv(x).to(precision).view(batch, tokens, self.heads, -1).transpose(1, 2)
            key, value = kv.split([self.key_dim, self.value_dim], dim=3)
            query = self.q(self._at_queries(x, grid)).view(batch, -1, self.heads, self.key_dim).transpose(1, 2)
        if self.observer is not None:
            self.observer(query, key, value, bias)
        out = biased_attention(query, key, value, bias).to(x.dtype)
        return self.proj(out.transpose(1, 2).reshape(batch, -1, self.heads * self.value_dim))
