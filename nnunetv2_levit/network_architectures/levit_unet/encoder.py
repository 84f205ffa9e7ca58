"""LeViT as an encoder of feature maps, from timm's building blocks (Graham et al. 2021; LeViT-UNet, section 3.2).

The stem and the MLP are timm's, and so are all names in the state dict, so that timm's ImageNet checkpoints fit.
"""

from typing import Any

from timm.layers import DropPath
from timm.models.levit import LevitMlp, Stem16
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import Grid, halved, spatial_size, stage_grids
from nnunetv2_levit.network_architectures.layers.unet_levels import UNET_WIDTHS, DownLevels
from nnunetv2_levit.network_architectures.levit_unet.attention import Attention
from nnunetv2_levit.network_architectures.levit_unet.sizes import LeViTVariant

ATTENTION_RATIO, SUBSAMPLING_ATTENTION_RATIO, MLP_RATIO = 2, 4, 2


def transformer_grids(image_size: Grid) -> list[Grid]:
    """Token grids of the three stages, at strides 16, 32 and 64."""
    return stage_grids(image_size, first_stride=16, stages=3)


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
    blocks, None for all. With ``unet_levels`` nnU-Net's levels are the stem, and c0, of the image's size, comes first.
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
        unet_levels: bool = False,
    ) -> None:
        super().__init__()
        self.stem: nn.Module
        if unet_levels:
            self.stem = DownLevels([in_channels, *UNET_WIDTHS[:-1], variant.widths[0]])
        else:
            self.stem = Stem16(in_channels, variant.widths[0], act_layer=nn.Hardswish)
        self.stages = nn.ModuleList()
        if not transformer:
            return
        key_dim, drop_rate = variant.key_dim, variant.drop_path if drop_path is None else drop_path
        grids = transformer_grids(image_size)
        for index, (width, heads, depth) in enumerate(zip(variant.widths, variant.heads, variant.depths, strict=True)):
            downsample = None
            if index > 0:
                downsample = Subsampling(
                    width=variant.widths[index - 1],
                    out_width=width,
                    key_dim=key_dim,
                    grid=grids[index - 1],
                    drop_path=drop_rate,
                    identity=identity_attention,
                )
            stage = [
                Block(
                    width=width,
                    heads=heads,
                    key_dim=key_dim,
                    grid=grids[index],
                    drop_path=drop_rate,
                    identity=identity_attention,
                )
                for _ in range(depth if blocks is None else min(depth, blocks))
            ]
            self.stages.append(Stage(downsample=downsample, blocks=stage))

    def _convolutional_maps(self, x: Tensor) -> list[Tensor]:
        """c1 to c4, after c0 with nnU-Net's levels."""
        if isinstance(self.stem, DownLevels):
            return self.stem(x)
        stem: Any = self.stem  # timm adds its layers by name
        c1 = stem.act1(stem.conv1(x))
        c2 = stem.act2(stem.conv2(c1))
        c3 = stem.act3(stem.conv3(c2))
        return [c1, c2, c3, stem.conv4(c3)]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        maps = self._convolutional_maps(x)
        c4 = maps[-1]
        grid = spatial_size(c4)
        tokens = c4.flatten(2).transpose(1, 2)
        transformer = []
        for stage in self.stages:
            tokens, grid = stage(tokens, grid)
            transformer.append(tokens.transpose(1, 2).unflatten(2, grid))
        return maps, transformer

    def bias_grids(self, image_size: Grid) -> dict[str, Grid]:
        """Key grid of each bias table in this module's state dict, had it been built for ``image_size``."""
        grids = transformer_grids(image_size)
        result = {}
        for index, stage in enumerate(self.stages):
            for name, module in stage.named_modules():
                if isinstance(module, Attention) and not module.identity:
                    # keys of a subsampling are the tokens of the stage before
                    grid = grids[index - 1] if module.query_stride == 2 else grids[index]
                    result[f"stages.{index}.{name}.attention_biases"] = grid
        return result
