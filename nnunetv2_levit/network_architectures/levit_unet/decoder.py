"""The convolutional U-Net decoder of LeViT-UNet (Xu et al. 2021, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.base import output_size
from nnunetv2_levit.network_architectures.layers.convolution_blocks import UpsampleConvBlock
from nnunetv2_levit.network_architectures.layers.grids import Grid, spatial_size
from nnunetv2_levit.network_architectures.layers.unet_levels import UNetDecoder
from nnunetv2_levit.network_architectures.layers.upsampled_convolution import upsample

WIDTHS = (512, 256, 128)  # at strides 8, 4 and 2
SCALES = (1.0, 0.25, 0.125)  # of the outputs


class LeViTUNetDecoder(nn.Module):
    """Three upsampling blocks and the segmentation heads.

    ``forward`` takes the encoder's two lists of maps and the image size, and returns logits at full resolution, and at
    1/4 and 1/8 where auxiliary heads exist and are asked for.

    Args:
        stem_widths: channels of the convolutional maps c1 to c4.
        transformer_widths: channels of the transformer maps s1 to s3; empty without a transformer.
        skips: how many skip connections, from c1 inwards; c4 stays where it is the only input.
    """

    def __init__(
        self,
        *,
        stem_widths: tuple[int, int, int, int],
        transformer_widths: tuple[int, ...],
        num_classes: int,
        skips: int,
        auxiliary_heads: bool,
    ) -> None:
        super().__init__()
        self.skips = skips
        self.use_c4 = skips == 4 or not transformer_widths
        c1, c2, c3, c4 = stem_widths
        finest = (c4 if self.use_c4 else 0) + sum(transformer_widths[:1])
        d1, d2, d3 = WIDTHS
        self.blocks = nn.ModuleList(
            [
                UpsampleConvBlock([finest, *transformer_widths[1:]], d1),
                UpsampleConvBlock([d1 + (c3 if skips > 2 else 0)], d2),
                UpsampleConvBlock([d2 + (c2 if skips > 1 else 0)], d3),
            ]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(d3 + (c1 if skips > 0 else 0), num_classes, 3, padding=1)])
        if auxiliary_heads:
            self.seg_layers.extend([nn.Conv2d(d2, num_classes, 1), nn.Conv2d(d1, num_classes, 1)])

    def _bottleneck(self, c4: Tensor, transformer: list[Tensor]) -> tuple[list[Tensor], list[list[Grid]]]:
        """[c4, s1], s2 and s3, and the sizes through which each passes to stride 16: up(s2) and up(up(s3)).

        ``up`` doubles the map; only then is it resized to the grid of c4, where that differs (14 -> 7 -> 4 tokens:
        4 -> 8 -> 16 -> 14), as the authors' code does. A direct resize gives other numbers.
        """
        finest = transformer[:1]
        if self.use_c4:
            finest = [c4, *finest]
        maps = [torch.cat(finest, dim=1) if len(finest) > 1 else finest[0]]
        steps: list[list[Grid]] = [[]]
        for doublings, x in enumerate(transformer[1:], start=1):
            height, width = spatial_size(x)
            maps.append(x)
            steps.append([(height * 2**n, width * 2**n) for n in range(1, doublings + 1)] + [spatial_size(c4)])
        return maps, steps

    def _skip(self, x: Tensor, skip: Tensor, number: int) -> Tensor:
        """Concatenation with the convolutional map of that number, where that connection exists."""
        return torch.cat([x, skip], dim=1) if self.skips >= number else x

    def forward(
        self, features: tuple[list[Tensor], list[Tensor]], image_size: Grid, *, auxiliary: bool
    ) -> list[Tensor]:
        (c1, c2, c3, c4), transformer = features
        bottleneck, steps = self._bottleneck(c4, transformer)
        d1 = self.blocks[0](bottleneck, spatial_size(c3), steps=steps)
        d2 = self.blocks[1]([self._skip(d1, c3, 3)], spatial_size(c2))
        d3 = self.blocks[2]([self._skip(d2, c2, 2)], spatial_size(c1))
        inputs = [self._skip(d3, c1, 1)]
        if auxiliary:
            inputs += [d2, d1]
        return [
            upsample(layer(x), output_size(image_size, scale))
            for layer, x, scale in zip(self.seg_layers, inputs, SCALES, strict=False)
        ]


class JoinedUNetDecoder(nn.Module):
    """nnU-Net's levels in the place of LeViT-UNet's decoder, from all maps at stride 16 and coarser, concatenated.

    ``forward`` as `LeViTUNetDecoder`'s; outputs at 1, and at 1/2 and 1/4 where auxiliary heads exist and are asked for.
    """

    def __init__(self, *, bottleneck_widths: Sequence[int], num_classes: int, auxiliary_heads: bool) -> None:
        super().__init__()
        self.unet = UNetDecoder(width=sum(bottleneck_widths), num_classes=num_classes, auxiliary_heads=auxiliary_heads)

    def forward(
        self, features: tuple[list[Tensor], list[Tensor]], image_size: Grid, *, auxiliary: bool
    ) -> list[Tensor]:
        (*skips, c4), transformer = features
        x = torch.cat([c4, *(upsample(s, spatial_size(c4)) for s in transformer)], dim=1)
        return self.unet(x, skips, image_size, auxiliary=auxiliary)
