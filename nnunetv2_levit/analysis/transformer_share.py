"""How much of a hybrid is transformer: its share of parameters and of multiply-adds."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock
from nnunetv2_levit.benchmark.measure import multiply_adds_of_modules


def transformer_share(network: nn.Module, blocks: Sequence[TransformerBlock], image: Tensor) -> dict[str, Any]:
    """Parameters and multiply-adds of a network, of its transformer blocks, of their attention, and the share outside
    the blocks, for an image (C, H, W).

    A PI block of UNet-2022 counts as a whole, with its convolutions.
    """
    attention = {id(block): next(n for n, m in network.named_modules() if m is block.attention) for block in blocks}
    operations = multiply_adds_of_modules(network, image[None])
    numbers = {
        "parameters": {
            "network": sum(p.numel() for p in network.parameters()),
            "transformer_blocks": sum(p.numel() for block in blocks for p in block.module.parameters()),
            "attention": sum(p.numel() for block in blocks for p in block.attention.parameters()),
        },
        "multiply_adds": {
            "network": operations[""],
            "transformer_blocks": sum(operations.get(block.name, 0) for block in blocks),
            "attention": sum(operations.get(attention[id(block)], 0) for block in blocks),
        },
    }
    return {
        what: {**counts, "share_outside_the_transformer": 1 - counts["transformer_blocks"] / counts["network"]}
        for what, counts in numbers.items()
    }
