"""The transformer blocks of a network, whatever its family, in the order in which an image passes them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from timm.models.vision_transformer import Attention as VisionAttention
from timm.models.vision_transformer import Block as VisionBlock
from torch import nn

from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.base import SegmentationNetwork
from nnunetv2_levit.network_architectures.levit_unet.attention import Attention as LeViTAttention
from nnunetv2_levit.network_architectures.levit_unet.encoder import Block as LeViTBlock
from nnunetv2_levit.network_architectures.levit_unet.encoder import Subsampling
from nnunetv2_levit.network_architectures.unet2022.pi_block import PIBlock, SwinBlock
from nnunetv2_levit.network_architectures.unet2022.window_attention import WindowedMixing
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH

Kind = Literal["vit", "levit", "windows"]
LEVIT_STRIDE = 16  # of the first stage's tokens, in pixels


@dataclass(frozen=True)
class TransformerBlock:
    """One block with attention.

    Attributes:
        name: in the network's state dict.
        title: for people, such as "stage 1/16, block 2".
        stage: blocks of one stage have it in common; `truncate` shortens every stage by its last blocks.
        stride: extent in pixels of the tokens that are looked at.
        kind: which attention it has: of a vision transformer (global), LeViT's (global, on a grid), or in windows.
        attention: the module with queries and keys; of a window block the one inside its ``mixing``.
        mixing: what pads, rolls and cuts the map into windows; None for the other kinds.
        skippable: whether the block's output has the shape of its input, so that the block may be left out whole.
            LeViT's subsamplings may not, and stay in every truncated network.
    """

    name: str
    title: str
    stage: str
    stride: int
    kind: Kind
    module: nn.Module
    attention: nn.Module
    mixing: WindowedMixing | None
    skippable: bool


def _described(name: str, module: nn.Module, network: nn.Module) -> tuple[str, str, int]:
    """Title of a block, its stage, and the extent of its tokens (those that are looked at) in pixels."""
    first, *_, last = (int(number) for number in re.findall(r"\.(\d+)", name) * 2)
    container = name.rpartition(".")[0]
    if isinstance(module, VisionBlock):
        return f"block {last + 1}", container, PATCH
    if isinstance(module, Subsampling):
        stride = LEVIT_STRIDE * 2 ** (first - 1)
        return f"subsampling 1/{stride} to 1/{2 * stride}", name, stride
    if isinstance(module, LeViTBlock):
        stride = LEVIT_STRIDE * 2**first
        return f"stage 1/{stride}, block {last + 1}", container, stride
    encoder: Any = network.encoder
    stride = 2 ** (len(encoder.stem) + first)
    return f"{name.partition('.')[0]} 1/{stride}, block {last + 1}", container, stride


def _blocks(network: nn.Module) -> Iterator[TransformerBlock]:
    for name, module in network.named_modules():
        attention: nn.Module | None = None
        kind: Kind = "levit"
        mixing: WindowedMixing | None = None
        if isinstance(module, VisionBlock) and isinstance(module.attn, VisionAttention):
            kind, attention = "vit", module.attn
        elif isinstance(module, LeViTBlock):
            attention = module.attn
        elif isinstance(module, Subsampling):
            attention = module.attn_downsample
        elif isinstance(module, PIBlock | SwinBlock):
            kind, mixing = "windows", module.mixing
            attention = mixing.attention
        if attention is None or (isinstance(attention, LeViTAttention) and attention.identity):
            continue
        title, stage, stride = _described(name, module, network)
        yield TransformerBlock(
            name=name,
            title=title,
            stage=stage,
            stride=stride,
            kind=kind,
            module=module,
            attention=attention,
            mixing=mixing,
            skippable=not isinstance(module, Subsampling),
        )


def _order(block: TransformerBlock) -> tuple[int, int]:
    """Decoders list their stages finest first, and run them coarsest first."""
    match = re.match(r"decoder\.stages\.(\d+)\.(\d+)", block.name)
    return (0, 0) if match is None else (1, -int(match[1]))


def transformer_blocks(network: nn.Module) -> list[TransformerBlock]:
    """All blocks with attention in the order in which an image passes them; none for a network without attention, or
    of another package, where the same layers of timm's may see other tokens."""
    if not isinstance(network, SegmentationNetwork):
        return []
    return sorted(_blocks(network), key=_order)


def require_blocks(network: nn.Module, name: str) -> list[TransformerBlock]:
    """The blocks of a network of which attention is asked.

    Raises:
        UserError: it has none, or the adapter pads its patches; ``name`` is that of its trainer.
    """
    blocks = transformer_blocks(network)
    if not blocks:
        inner = network.network if isinstance(network, AdaptedNetwork) else network
        if inner is not network and transformer_blocks(inner):
            raise UserError(
                f"{name} trains {type(inner).__name__} on patches that the adapter pads, so that its tokens are not "
                "those of the patch: give a model whose configuration says no size_multiple and smallest_size (the "
                "networks of this package need none), or look at it by class activation (`nnunetv2_levit cam`)"
            )
        raise UserError(
            f"{name} trains {type(inner).__name__}, a network without attention of this package: give a model of a "
            "transformer hybrid (`nnunetv2_levit trainers` lists them), or look at it by class activation "
            "(`nnunetv2_levit cam`)"
        )
    return blocks


def stages(blocks: list[TransformerBlock]) -> dict[str, list[TransformerBlock]]:
    """The blocks that `truncate` counts, by stage, in order."""
    result: dict[str, list[TransformerBlock]] = {}
    for block in blocks:
        if block.skippable:
            result.setdefault(block.stage, []).append(block)
    return result
