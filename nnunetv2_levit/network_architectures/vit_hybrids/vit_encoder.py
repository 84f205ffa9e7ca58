"""The one vision transformer of the package (Dosovitskiy et al. 2021), from timm's blocks and with timm's names.

TransFuse's DeiT and the ViT of TransUNet, 2D UNETR and 2D CATS are this module in other shapes. There is no class
token: none of these networks decodes it, so it would be carried without a gradient (TransFuse's code carries it).
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.grids import Grid, spatial_size
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm

PATCH = 16
INIT_STD = 0.02
STEM_WIDTHS = (48, 96, 192, 384)  # of `convolutional_patches`


def resize_position_embedding(table: Tensor, *, old_grid: Grid, new_grid: Grid) -> Tensor:
    """Position embedding (1, h*w, C) for another grid (1, H*W, C): bilinear with aligned corners.

    Raises:
        UserError: the table does not belong to the old grid.
    """
    if table.shape[1] != old_grid[0] * old_grid[1]:
        raise UserError(f"{table.shape[1]} position embeddings do not belong to a grid of {old_grid[0]}x{old_grid[1]}")
    if old_grid == new_grid:
        return table
    maps = table.transpose(1, 2).unflatten(2, old_grid)
    resized = F.interpolate(
        maps.float() if maps.dtype == torch.float16 else maps, new_grid, mode="bilinear", align_corners=True
    )
    return resized.to(table.dtype).flatten(2).transpose(1, 2)


def convolutional_patches(in_channels: int, width: int) -> nn.Sequential:
    """Tokens (B, width, H/16, W/16) by four 3x3 convolutions of stride 2 and a 1x1 one, as Xiao et al. (2021, "Early
    convolutions help transformers see better") have them, with the norm and activation of nnU-Net's networks.
    """
    layers: list[nn.Module] = []
    for out_channels in STEM_WIDTHS:
        layers.append(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False))
        layers += [nn.InstanceNorm2d(out_channels, affine=True), nn.LeakyReLU(inplace=True)]
        in_channels = out_channels
    return nn.Sequential(*layers, nn.Conv2d(in_channels, width, 1))


class ViTEncoder(nn.Module):
    """Patch embedding, position embedding, pre-norm blocks and a final layer norm.

    ``forward`` takes (B, in_channels, patch * h, patch * w) and returns maps (B, width, h, w): the outputs of the
    blocks numbered in ``taps`` (from 1, not normed), then the normed output of the last block. A grid other than the
    one built for gets the position embedding resized.

    Args:
        grid: tokens (rows, columns) of the position embedding.
        patch: extent of a token in input pixels; 1 on a convolutional map.
        dropout: of embeddings and MLPs (not of the attention), as in TransUNet's code.
        drop_path: probability of dropping the last block's residual branches; it rises linearly from 0 at the first.
        conv_stem: tokens of 16 x 16 pixels by `convolutional_patches`.
        layer_scale: first value of a learned factor for each channel of a residual branch; None for no such factors.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        grid: Grid,
        width: int,
        heads: int,
        blocks: int,
        patch: int = PATCH,
        taps: tuple[int, ...] = (),
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        conv_stem: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.taps = grid, taps
        if conv_stem:
            self.patch_embed = convolutional_patches(in_channels, width)
        else:
            self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(in_channels, width, patch, stride=patch)))
        self.pos_embed = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))
        self.dropout = nn.Dropout(dropout)
        norm: Any = partial(LayerNorm, eps=1e-6)  # timm says class
        self.blocks = nn.ModuleList(
            [
                Block(
                    *(width, heads),
                    mlp_ratio=4.0,
                    qkv_bias=True,
                    norm_layer=norm,
                    init_values=layer_scale,
                    drop_path=drop_path * number / max(1, blocks - 1),
                )
                for number in range(blocks)
            ]
        )
        self.norm = norm(width)
        nn.init.normal_(self.pos_embed, std=INIT_STD)
        for block in self.blocks:
            self._initialise(block, dropout)

    @staticmethod
    def _initialise(block: Any, dropout: float) -> None:
        block.mlp.drop1.p = block.mlp.drop2.p = dropout  # not the attention's
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            nn.init.normal_(linear.weight, std=INIT_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        grid = spatial_size(x)
        positions = resize_position_embedding(self.pos_embed, old_grid=self.grid, new_grid=grid)
        x = self.dropout(x.flatten(2).transpose(1, 2) + positions)  # fp32 under autocast, and so all sums of the blocks
        outputs = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.taps:
                outputs.append(x)
        outputs.append(self.norm(x))
        return [tokens.transpose(1, 2).unflatten(2, grid) for tokens in outputs]
