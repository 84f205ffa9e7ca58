"""The decoder of UNet-2022: three stages, upsampling before each, heads (Guo et al. 2022, sections 3.3 and 3.4)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.grids import Grid, crop, halvings, spatial_size
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm, norm_channels
from nnunetv2_levit.network_architectures.layers.unet_levels import UNetDecoder
from nnunetv2_levit.network_architectures.unet2022.encoder import FINE_WIDTHS

OUTPUTS = 3  # with auxiliary heads
HEAD_STRIDE = 4  # of the last transposed convolution


class HeadBlock(nn.Module):
    """Transposed 2x2 stride 2, GELU, LN, 3x3, GELU, LN, halving the channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        out_channels = in_channels // 2
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.norm1 = LayerNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = norm_channels(self.norm1, F.gelu(self.conv1(x)))
        return norm_channels(self.norm2, F.gelu(self.conv2(x)))


class Upsampling(nn.Module):
    """LN, transposed 2x2 stride 2, halving the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.up = nn.ConvTranspose2d(width, width // 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(norm_channels(self.norm, x))


class Decoder(nn.Module):
    """Three stages, coarsest first, each after an upsampling and the addition of its skip; a head for each output.

    ``forward`` takes the encoder's maps and returns logits at full resolution, and at 1/2 and 1/4 where auxiliary heads
    exist and are asked for; up to a stem stride larger than the image, as grids are rounded up.

    With ``unet_levels`` the encoder's finer maps come first, and a `UNetDecoder` goes on from the finest stage.

    Args:
        stages: blocks of the stages, the finest first.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
        stem_stride: int,
        stages: Sequence[Sequence[nn.Module]],
        auxiliary_heads: bool,
        unet_levels: bool = False,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages])
        widths = [width * 2**index for index in range(len(stages))]
        self.upsamplings = nn.ModuleList([Upsampling(2 * w) for w in widths])
        self.unet: UNetDecoder | None = None
        if unet_levels:
            self.unet = UNetDecoder(
                width=width, num_classes=num_classes, auxiliary_heads=auxiliary_heads, skip_widths=FINE_WIDTHS
            )
            return
        head_depth = halvings(stem_stride // HEAD_STRIDE)
        head_widths = widths[: OUTPUTS if auxiliary_heads else 1]
        self.head_blocks = nn.ModuleList(
            [nn.Sequential(*(HeadBlock(w // 2**step) for step in range(head_depth))) for w in head_widths]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList(
            [nn.ConvTranspose2d(w // 2**head_depth, num_classes, HEAD_STRIDE, stride=HEAD_STRIDE) for w in head_widths]
        )

    def forward(self, features: list[Tensor], image_size: Grid, *, auxiliary: bool) -> list[Tensor]:
        finer = len(features) - len(self.stages) - 1
        fine, (*skips, x) = features[:finer], features[finer:]
        maps = []
        for index in reversed(range(len(skips))):
            skip = skips[index]
            x = crop(self.upsamplings[index](x), spatial_size(skip)) + skip
            x = self.stages[index](x)
            maps.append(x)
        if self.unet is not None:
            return self.unet(x, fine, image_size, auxiliary=auxiliary)
        wanted = maps[::-1][: OUTPUTS if auxiliary else 1]
        return [layer(blocks(x)) for x, blocks, layer in zip(wanted, self.head_blocks, self.seg_layers, strict=False)]
