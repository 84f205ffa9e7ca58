"""LeViT as an encoder of feature maps, from timm's building blocks (Graham et al. 2021; LeViT-UNet, section 3.2).

The stem, the normalised linear layers and the MLP are timm's, and so are all names in the state dict, so that timm's
ImageNet checkpoints fit. The attention is ours: timm's keeps a copy of the expanded bias in eval mode that survives
``load_state_dict`` (folds 1 to 4 of an ensemble would run with the bias of fold 0), and it sizes its token grid by
rounding down where the strided convolutions round up.
"""

from dataclasses import dataclass

import torch
from timm.layers import DropPath
from timm.models.levit import LevitMlp, LinearNorm, Stem16
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.attention_bias import (
    PRECOMPUTED_BIAS_LIMIT,
    biased_attention,
    expand_attention_bias,
)
from nnunetv2_levit.network_architectures.grids import Grid, halved


@dataclass(frozen=True)
class LeViTVariant:
    """One column of the LeViT paper's Table 1; widths, heads and depths are per stage."""

    widths: tuple[int, int, int]
    heads: tuple[int, int, int]
    key_dim: int
    depths: tuple[int, int, int]
    drop_path: float
    timm_tag: str


LEVIT_VARIANTS = {
    "128s": LeViTVariant((128, 256, 384), (4, 6, 8), 16, (2, 3, 4), 0.0, "levit_128s.fb_dist_in1k"),
    "192": LeViTVariant((192, 288, 384), (3, 5, 6), 32, (4, 4, 4), 0.0, "levit_192.fb_dist_in1k"),
    "384": LeViTVariant((384, 512, 768), (6, 9, 12), 32, (4, 4, 4), 0.1, "levit_384.fb_dist_in1k"),
}

ATTENTION_RATIO, SUBSAMPLING_ATTENTION_RATIO, MLP_RATIO = 2, 4, 2


def stage_grids(image_size: Grid) -> tuple[Grid, Grid, Grid]:
    """Token grids of the three stages (strides 16, 32 and 64) for an image size in pixels."""
    grid = image_size
    for _ in range(4):
        grid = halved(grid)
    return grid, halved(grid), halved(halved(grid))


class Attention(nn.Module):
    """Multi-head attention with LeViT's bias, (B, N, C) -> (B, N', out); N' < N where ``query_stride`` is 2.

    With ``identity=True`` every token attends to itself alone: the value and output projections stay, while queries,
    keys and biases, which then receive no gradient, are left out.
    """

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

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        batch, tokens, _ = x.shape
        if self.identity:
            return self.proj(self._at_queries(self.v(x), grid))
        bias = self.precomputed_bias if grid == self.grid and self.precomputed_bias is not None else self._bias(grid)
        precision = torch.promote_types(bias.dtype, torch.float32)  # that of `biased_attention`: one copy, not three
        if self.query_stride == 1:
            qkv = self.qkv(x).to(precision).view(batch, tokens, self.heads, -1).transpose(1, 2)
            query, key, value = qkv.split([self.key_dim, self.key_dim, self.value_dim], dim=3)
        else:
            kv = self.kv(x).to(precision).view(batch, tokens, self.heads, -1).transpose(1, 2)
            key, value = kv.split([self.key_dim, self.value_dim], dim=3)
            query = self.q(self._at_queries(x, grid)).view(batch, -1, self.heads, self.key_dim).transpose(1, 2)
        out = biased_attention(query, key, value, bias).to(x.dtype)
        return self.proj(out.transpose(1, 2).reshape(batch, -1, self.heads * self.value_dim))


class Block(nn.Module):
    """Attention, then MLP, each with a residual."""

    def __init__(self, *, width: int, heads: int, key_dim: int, grid: Grid, drop_path: float, identity: bool) -> None:
        super().__init__()
        self.attn = Attention(
            width=width,
            out_width=width,
            heads=heads,
            key_dim=key_dim,
            ratio=ATTENTION_RATIO,
            grid=grid,
            identity=identity,
        )
        self.drop_path1 = DropPath(drop_path)
        self.mlp = LevitMlp(width, MLP_RATIO * width, act_layer=nn.Hardswish)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.drop_path1(self.attn(x, grid))
        return x + self.drop_path2(self.mlp(x))


class Subsampling(nn.Module):
    """Attention whose queries stand on every second token, without residual; then an MLP with one."""

    def __init__(
        self, *, width: int, out_width: int, key_dim: int, grid: Grid, drop_path: float, identity: bool
    ) -> None:
        super().__init__()
        self.attn_downsample = Attention(
            width=width,
            out_width=out_width,
            heads=width // key_dim,
            key_dim=key_dim,
            ratio=SUBSAMPLING_ATTENTION_RATIO,
            grid=grid,
            query_stride=2,
            residual=False,
            identity=identity,
        )
        self.mlp = LevitMlp(out_width, MLP_RATIO * out_width, act_layer=nn.Hardswish)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = self.attn_downsample(x, grid)
        return x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """A stage of blocks on one token grid, after a subsampling except in the first stage."""

    def __init__(self, *, downsample: Subsampling | None, blocks: list[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if self.downsample is not None:
            x, grid = self.downsample(x, grid), halved(grid)
        for block in self.blocks:
            x = block(x, grid)
        return x, grid


class LeViTEncoder(nn.Module):
    """Stem and transformer stages as feature maps.

    ``forward`` takes (B, C, H, W) and returns two lists: the convolutional maps c1 to c4 (strides 2, 4, 8, 16; the
    first three after Hardswish) and the transformer maps s1 to s3 (strides 16, 32, 64; empty without a transformer).
    Sizes are rounded up at each stride. H and W may be at most ``image_size``. Each stage keeps its first ``blocks``
    blocks, None for all.
    """

    def __init__(
        self,
        *,
        variant: LeViTVariant,
        in_channels: int,
        image_size: Grid,
        transformer: bool = True,
        identity_attention: bool = False,
        blocks: int | None = None,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        drop_path = variant.drop_path if drop_path is None else drop_path
        self.image_size = image_size
        self.stem = Stem16(in_channels, variant.widths[0], act_layer=nn.Hardswish)
        stages = []
        grids = stage_grids(image_size)
        for index, (width, heads, depth, grid) in enumerate(
            zip(variant.widths, variant.heads, variant.depths, grids, strict=True)
        ):
            if not transformer:
                break
            shared = dict(key_dim=variant.key_dim, drop_path=drop_path, identity=identity_attention)
            downsample = None
            if index > 0:
                downsample = Subsampling(
                    width=variant.widths[index - 1], out_width=width, grid=grids[index - 1], **shared
                )
            kept = depth if blocks is None else min(depth, blocks)
            stage = [Block(width=width, heads=heads, grid=grid, **shared) for _ in range(kept)]
            stages.append(Stage(downsample=downsample, blocks=stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        stem = self.stem
        convolutional = []
        for convolution, activation in ((stem.conv1, stem.act1), (stem.conv2, stem.act2), (stem.conv3, stem.act3)):
            x = activation(convolution(x))
            convolutional.append(x)
        x = stem.conv4(x)
        convolutional.append(x)

        grid = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        transformer = []
        for stage in self.stages:
            tokens, grid = stage(tokens, grid)
            transformer.append(tokens.transpose(1, 2).unflatten(2, grid))
        return convolutional, transformer

    def bias_grids(self, image_size: Grid) -> dict[str, Grid]:
        """Key grid of each bias table in this module's state dict, had it been built for ``image_size``."""
        grids = stage_grids(image_size)
        result = {}
        for index, stage in enumerate(self.stages):
            for name, module in stage.named_modules():
                if isinstance(module, Attention) and not module.identity:
                    grid = grids[index - 1] if module.query_stride == 2 else grids[index]
                    result[f"stages.{index}.{name}.attention_biases"] = grid
        return result
