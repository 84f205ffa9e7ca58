"""Knocking blocks out of a network without retraining, and computing only what a knock-out changes.

``attention``: each token of the block attends to itself alone (the weights become the identity); projections, MLP and
convolutions stay. ``block``: the block's output is its input.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from timm.models.levit import Stem16
from torch import Tensor, nn

from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock, stages

What = Literal["attention", "block"]


@dataclass(frozen=True)
class KnockOut:
    """What is taken out of a network.

    Attributes:
        key: short and unique, for files.
        what: the attention of ``blocks``, or the whole blocks.
        series: "single" (one block), or "cumulative" (the last ones).
        kept: of a cumulative knock-out, how many blocks (in each stage) are left untouched.
    """

    key: str
    title: str
    what: What
    series: Literal["single", "cumulative"]
    blocks: tuple[TransformerBlock, ...]
    kept: int | None = None


def _vit_identity(attention: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """timm's attention with the identity for weights, (B, N, C) -> (B, N, C)."""
    value = attention.qkv(x)[..., 2 * x.shape[-1] :]
    return attention.proj_drop(attention.proj(value))


def _unchanged(x: Tensor, *_: Any) -> Tensor:
    return x


@contextmanager
def _computed_as(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """``module`` computes ``forward`` in this block."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _replacement(block: TransformerBlock, what: What) -> tuple[nn.Module, Callable[..., Any]]:
    """The module to replace and what to compute instead."""
    attention: Any = block.attention
    if what == "block":
        if not block.skippable:
            raise ValueError(f"{block.title} changes the shape of its input and can't be skipped")
        return block.module, _unchanged
    if block.kind == "vit":
        return attention, partial(_vit_identity, attention)
    return attention, attention.attend_to_itself


@contextmanager
def knocked_out(knock_out: KnockOut) -> Iterator[None]:
    """The network of these blocks computes without them in this block; nothing is left of it afterwards."""
    with ExitStack() as stack:
        for block in knock_out.blocks:
            stack.enter_context(_computed_as(*_replacement(block, knock_out.what)))
        yield


def _single(blocks: Sequence[TransformerBlock], what: What) -> Iterator[KnockOut]:
    for number, block in enumerate(blocks, start=1):
        if what == "attention" or block.skippable:
            yield KnockOut(f"{what}-{number:02d}", block.title, what, "single", (block,))


def _cumulative(blocks: Sequence[TransformerBlock], what: What) -> Iterator[KnockOut]:
    by_stage = stages(list(blocks))
    deepest = max((len(stage) for stage in by_stage.values()), default=0)
    several = len(by_stage) > 1
    for kept in reversed(range(deepest)):
        gone = tuple(block for stage in by_stage.values() for block in stage[kept:])
        left = "block" if kept == 1 else "blocks"
        title = f"the first {kept} {left}{' of each stage' if several else ''} left" if kept else "no block left"
        yield KnockOut(f"{what}-from-{kept + 1:02d}", title, what, "cumulative", gone, kept)


def knock_outs(blocks: Sequence[TransformerBlock]) -> list[KnockOut]:
    """All knock-outs of a network: attention and whole blocks, one at a time and cumulatively from the last.

    In networks of several stages a cumulative step takes the last block of every stage that still has one more than is
    kept, as `truncate` does. LeViT's subsamplings can only lose their attention, one at a time.
    """
    both: tuple[What, ...] = ("attention", "block")
    found = [item for what in both for item in _single(blocks, what)]
    return found + [item for what in both for item in _cumulative(blocks, what)]


# what a knock-out leaves untouched -----------------------------------------------------------------------------------


@dataclass
class _Call:
    """Operands and result of one call of a module."""

    arguments: tuple[Any, ...]
    output: Any


def _same(stored: Any, given: Any) -> bool:
    if isinstance(stored, Tensor):
        return isinstance(given, Tensor) and stored.shape == given.shape and torch.equal(stored, given)
    if isinstance(stored, list | tuple):
        return isinstance(given, list | tuple) and len(stored) == len(given) and all(map(_same, stored, given))
    return bool(stored == given)


def _copied(value: Any) -> Any:
    """Tensors of a module's input or output as copies: later layers may compute in place."""
    if isinstance(value, Tensor):
        return value.clone(memory_format=torch.preserve_format)
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


@dataclass
class ReusedParts:
    """Parts of a network whose results are kept and used again wherever their operands are the same.

    Exact by construction: a part without a knock-out in it, on equal operands, computes what it computed before.
    """

    parts: list[nn.Module]
    calls: dict[tuple[int, int], _Call] = field(default_factory=dict)
    batch: int = 0
    keeping: bool = False

    def start(self) -> None:
        """Forget what was kept: new images come."""
        self.calls.clear()

    def _forward(self, index: int, original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        if keywords:  # heads, which come last and are never the same
            return original(*arguments, **keywords)
        key = (self.batch, index)
        call = self.calls.get(key)
        if call is not None and len(call.arguments) == len(arguments) and all(map(_same, call.arguments, arguments)):
            return _copied(call.output)
        if not self.keeping:
            return original(*arguments)
        kept = tuple(_copied(argument) for argument in arguments)
        output = original(*arguments)
        self.calls[key] = _Call(kept, _copied(output))
        return output

    @contextmanager
    def used(self, changed: Sequence[TransformerBlock] = ()) -> Iterator[None]:
        """Reuse results in this block, but not those of the blocks that are ``changed`` in it."""
        others = {id(block.module) for block in changed}
        with ExitStack() as stack:
            for index, part in enumerate(self.parts):
                if id(part) in others:
                    continue
                stack.enter_context(_computed_as(part, partial(self._forward, index, part.forward)))
            yield


def reusable_parts(network: nn.Module, blocks: Sequence[TransformerBlock]) -> list[nn.Module]:
    """The largest parts of a network that hold no block, and the blocks themselves."""
    inside = {id(block.module) for block in blocks}
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            holds_block = any(id(part) in inside for part in child.modules())
            called_in_pieces = isinstance(child, Stem16 | nn.ModuleList)
            if id(child) not in inside and (holds_block or called_in_pieces):
                visit(child)
            elif any(True for _ in child.parameters()):
                found.append(child)

    visit(network)
    return found
