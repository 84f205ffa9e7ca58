"""LeViT-UNet (Xu et al. 2021, arXiv 2107.08623): a LeViT encoder with a convolutional U-Net decoder.

Follows the authors' code where it and the paper differ: attention before MLP, batch norm after each linear layer, the
logits predicted at half resolution and upsampled.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.attention_bias import BiasPolicy, resize_attention_bias_table
from nnunetv2_levit.network_architectures.decoder_blocks import UpsampleConvBlock, upsample
from nnunetv2_levit.network_architectures.grids import check_blocks, check_channels
from nnunetv2_levit.network_architectures.levit_encoder import LEVIT_VARIANTS, LeViTEncoder
from nnunetv2_levit.network_architectures.pretrained import (
    LoadReport,
    adapt_first_convolution,
    copy_weights,
    find_weights,
    read_state_dict,
)
from nnunetv2_levit.network_architectures.upsampled_convolution import Source

DECODER_WIDTHS = (512, 256, 128)
IMAGENET_SIZE = (224, 224)


class LeViTUNetDecoder(nn.Module):
    """Three upsampling blocks and the segmentation heads.

    ``forward`` takes the sources of the map at stride 16, the convolutional maps c1 to c3 and the image size, and
    returns the logits at full resolution followed by the auxiliary ones at 1/4 and 1/8 where those heads exist.
    """

    def __init__(
        self,
        *,
        source_widths: list[int],
        skip_widths: tuple[int, int, int],
        num_classes: int,
        skips: int,
        auxiliary_heads: bool,
    ) -> None:
        super().__init__()
        c1, c2, c3 = (width if skips > index else 0 for index, width in enumerate(skip_widths))
        d1, d2, d3 = DECODER_WIDTHS
        self.skips = skips
        self.blocks = nn.ModuleList(
            [UpsampleConvBlock(source_widths, d1), UpsampleConvBlock(d1 + c3, d2), UpsampleConvBlock(d2 + c2, d3)]
        )
        # named seg_layers because `nnUNetv2_train -pretrained_weights` leaves out what is called so
        self.seg_layers = nn.ModuleList([nn.Conv2d(d3 + c1, num_classes, 3, padding=1)])
        if auxiliary_heads:
            self.seg_layers.extend([nn.Conv2d(d2, num_classes, 1), nn.Conv2d(d1, num_classes, 1)])

    def forward(
        self, sources: list[Source], convolutional: list[Tensor], image_size: tuple[int, int], *, auxiliary: bool
    ) -> list[Tensor]:
        block_outputs = []
        x = sources
        for block, depth in zip(self.blocks, (2, 1, 0), strict=True):
            skip = convolutional[depth]
            x = block(x, (skip.shape[2], skip.shape[3]))
            block_outputs.append(x)
            if self.skips > depth:
                x = torch.cat([x, skip], dim=1)
        outputs = [upsample(self.seg_layers[0](x), image_size)]
        if auxiliary:
            for layer, features, stride in zip(self.seg_layers[1:], block_outputs[1::-1], (4, 8), strict=True):
                # nnU-Net rounds the sizes of the downsampled targets, strided convolutions round up
                size = (round(image_size[0] / stride), round(image_size[1] / stride))
                outputs.append(upsample(layer(features), size))
        return outputs


class LeViTUNet(nn.Module):
    """LeViT-UNet of one of the paper's three sizes.

    ``forward`` takes (B, in_channels, H, W) with H and W at most those of ``image_size`` and returns logits
    (B, num_classes, H, W); with ``deep_supervision`` set, a list of logits at 1, 1/4 and 1/8 of the resolution.

    Args:
        variant: "128s", "192" or "384".
        image_size: height and width in pixels, 32 to 1024 each; sets the extent of the attention biases.
        transformer: False gives the paper's "-Conv" networks (Table 3), which decode c4 alone.
        skips: how many skip connections, from c1 inwards (Table 4): 0 to 4. Without a transformer c4 is the decoder's
            only input and stays.
        identity_attention: every token attends to itself alone (an ablation; queries, keys and biases are left out).
        blocks: at most that many blocks in each transformer stage (the first ones); None keeps all.
        drop_path: probability of dropping a residual branch; None takes LeViT's own (0, 0, 0.1).
        auxiliary_heads: adds 1x1 heads for deep supervision (not in the paper).
        pretrained: a timm tag, a local file, or None; see ``load_pretrained``.
        bias_policy: how pretrained attention biases are resized to the image size.
    """

    deep_supervision_scales = (1.0, 0.25, 0.125)

    def __init__(
        self,
        *,
        variant: str,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        transformer: bool = True,
        skips: int = 4,
        identity_attention: bool = False,
        blocks: int | None = None,
        drop_path: float | None = None,
        auxiliary_heads: bool = False,
        pretrained: str | Path | None = None,
        bias_policy: BiasPolicy = "extend",
    ) -> None:
        super().__init__()
        if variant not in LEVIT_VARIANTS:
            raise UserError(f"LeViT-UNet variant {variant!r} is unknown: choose one of {', '.join(LEVIT_VARIANTS)}")
        if skips not in range(5):
            raise UserError(f"LeViT-UNet has 0 to 4 skip connections, not {skips!r}")
        widths = LEVIT_VARIANTS[variant]
        check_blocks(f"each stage of LeViT-UNet {variant}", blocks, max(widths.depths))
        self.variant = variant
        self.in_channels = in_channels
        self.image_size = image_size
        self.identity_attention = identity_attention
        self.auxiliary_heads = auxiliary_heads
        self.deep_supervision = auxiliary_heads
        self.encoder = LeViTEncoder(
            variant=widths,
            in_channels=in_channels,
            image_size=image_size,
            transformer=transformer,
            identity_attention=identity_attention,
            blocks=blocks,
            drop_path=drop_path,
        )
        stem_width = widths.widths[0]
        self.use_c4 = skips == 4 or not transformer
        self.decoder = LeViTUNetDecoder(
            source_widths=self._source_widths(stem_width, widths.widths if transformer else ()),
            skip_widths=(stem_width // 8, stem_width // 4, stem_width // 2),
            num_classes=num_classes,
            skips=skips,
            auxiliary_heads=auxiliary_heads,
        )
        self.to(memory_format=torch.channels_last)
        self.pretrained_report: LoadReport | None = None
        if pretrained is not None:
            self.load_pretrained(pretrained, bias_policy=bias_policy)

    def load_pretrained(self, source: str | Path, *, bias_policy: BiasPolicy = "extend") -> LoadReport:
        """Load a LeViT classifier's weights (timm's names, trained at 224 x 224) into the encoder.

        The first convolution is adapted to the channel count, the bias tables are resized by ``bias_policy``; the
        classifier heads are left out. The report is kept as ``pretrained_report``.

        Raises:
            UserError: the file can't be had or read, or does not fit.
        """
        if self.identity_attention:
            raise UserError("LeViT-UNet with identity attention has no pretrained weights: train it from scratch")
        path = find_weights(source)
        encoder = self.encoder
        state = {n: v for n, v in read_state_dict(path).items() if not n.endswith("attention_bias_idxs")}
        old_grids, new_grids = encoder.bias_grids(IMAGENET_SIZE), encoder.bias_grids(self.image_size)

        def adapt(name: str, value: Tensor, target: Tensor) -> tuple[Tensor, str | None]:
            if name == "stem.conv1.linear.weight":
                return adapt_first_convolution(value, target.shape[1])
            old, new = old_grids.get(name), new_grids.get(name)
            if old == new or value.shape[1] != old[0] * old[1]:
                return value, None  # fits, or is of another network and is refused by its shape
            value = resize_attention_bias_table(value, old_grid=old, new_grid=new, policy=bias_policy)
            return value, f"attention biases resized by policy {bias_policy}"

        self.pretrained_report = copy_weights(
            encoder,
            state,
            names={name: name for name in encoder.state_dict()},
            path=path,
            needed=LEVIT_VARIANTS[self.variant].timm_tag,
            adapt=adapt,
        )
        return self.pretrained_report

    def adapt_state_dict(
        self, state: dict[str, Tensor], *, image_size: tuple[int, int], bias_policy: BiasPolicy = "extend"
    ) -> dict[str, Tensor]:
        """A state dict of this network built for another ``image_size``, with its bias tables resized to this one's."""
        old, new = self.encoder.bias_grids(image_size), self.encoder.bias_grids(self.image_size)
        adapted = dict(state)
        for name in old:
            key = f"encoder.{name}"
            if key in adapted:
                adapted[key] = resize_attention_bias_table(
                    adapted[key], old_grid=old[name], new_grid=new[name], policy=bias_policy
                )
        return adapted

    def _source_widths(self, stem_width: int, widths: tuple[int, ...]) -> list[int]:
        finest = (stem_width if self.use_c4 else 0) + (widths[0] if widths else 0)
        return [finest, *widths[1:]]

    def _sources(self, c4: Tensor, transformer: list[Tensor]) -> list[Source]:
        """[c4, s1], up(s2) and up(up(s3)) at stride 16, not resized yet.

        ``up`` doubles the map; only then is it resized to the grid of c4, where that differs (14 -> 7 -> 4 tokens:
        4 -> 8 -> 16 -> 14), as the authors' code does. A direct resize gives other numbers.
        """
        size = (c4.shape[2], c4.shape[3])
        finest = [c4] * self.use_c4 + transformer[:1]
        sources = [Source(torch.cat(finest, dim=1) if len(finest) > 1 else finest[0])]
        for doublings, x in enumerate(transformer[1:], start=1):
            doubled = [(2**i * x.shape[2], 2**i * x.shape[3]) for i in range(1, doublings + 1)]
            sources.append(Source(x, (*doubled, size)))
        return sources

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_channels(x, self.in_channels)
        auxiliary = self.deep_supervision and self.auxiliary_heads
        convolutional, transformer = self.encoder(x.contiguous(memory_format=torch.channels_last))
        sources = self._sources(convolutional[3], transformer)
        outputs = self.decoder(sources, convolutional, (x.shape[2], x.shape[3]), auxiliary=auxiliary)
        return outputs if auxiliary else outputs[0]
