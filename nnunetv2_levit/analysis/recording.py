"""Recording what attention does in one forward pass: scores, weights, and where the tokens lie.

Outputs are the same to the bit with and without: weights are computed beside the fused attention that computes the
output, from the same operands. Everything is taken off again when the block is left.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.analysis.token_grids import TokenGrid, global_tokens, window_tokens
from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock
from nnunetv2_levit.network_architectures.layers.grids import Grid, token_grid
from nnunetv2_levit.network_architectures.unet2022.window_attention import shift_mask
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH


@dataclass
class LayerAttention:
    """The attention of one layer to one image.

    Attributes:
        block: whose it is.
        tokens: where queries and keys lie; one group, or a group for each window.
        scores: (groups, heads, Q, K) before the softmax: scaled products plus biases and masks.
        value: (groups, heads, K, d), for gradients.
        attended: (groups, heads, Q, d), the products of weights and values on their way through the network, of which
            the gradient is kept; None unless gradients were asked for.
        branch_norms: Euclidean norms of the attention's and the convolution's branch, where both are added.
    """

    block: TransformerBlock
    tokens: TokenGrid
    scores: Tensor
    value: Tensor
    attended: Tensor | None = None
    branch_norms: dict[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> Tensor:
        """Softmax of the scores: what each query takes of each key, (groups, heads, Q, K)."""
        return self.scores.softmax(dim=-1)

    def weights_gradient(self) -> Tensor:
        """Gradient of what was differentiated with respect to the weights, (groups, heads, Q, K).

        The weights are not part of the graph, where attention is fused. As attended = weights value, it is the
        attended tensor's gradient times the values.
        """
        if self.attended is None or self.attended.grad is None:
            raise ValueError(f"no gradient of {self.block.name} was recorded")
        return self._grouped(self.attended.grad.float().cpu()) @ self.value.transpose(-1, -2)

    def _grouped(self, attended: Tensor) -> Tensor:
        """What goes into the output projection, as (groups, heads, Q, d)."""
        groups, heads, _, depth = self.value.shape
        if self.block.kind == "windows":  # (1, rows, wh, columns, ww, heads, d)
            return attended.permute(0, 1, 3, 5, 2, 4, 6).reshape(groups, heads, -1, depth)
        return attended.reshape(groups, -1, heads, depth).transpose(1, 2)


@dataclass
class Recorder:
    """What was recorded, by the block's name, in the order of the forward pass."""

    gradients: bool
    image_size: Grid = (0, 0)
    grids: dict[str, Grid] = field(default_factory=dict)
    attended: dict[str, Tensor] = field(default_factory=dict)
    branches: dict[str, dict[str, float]] = field(default_factory=dict)
    layers: dict[str, LayerAttention] = field(default_factory=dict)

    def finished(self) -> list[LayerAttention]:
        """The layers, complete; call it when the forward pass is over."""
        for name, layer in self.layers.items():
            layer.attended = self.attended.get(name)
            layer.branch_norms = self.branches.get(name, {})
        return list(self.layers.values())

    def store(self, block: TransformerBlock, tokens: TokenGrid, query: Tensor, key: Tensor, value: Tensor,
               bias: Tensor | None) -> None:  # fmt: skip
        query, key, value = (x.detach().float() for x in (query, key, value))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias.detach().float()
        groups = len(tokens.queries)
        scores = scores.reshape(groups, -1, *scores.shape[-2:])
        value = value.reshape(groups, -1, *value.shape[-2:])
        self.layers[block.name] = LayerAttention(block, tokens, scores.cpu(), value.cpu())


def _note_image_size(recorder: Recorder, network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    (images,) = arguments
    if len(images) != 1:
        raise ValueError(f"attention is recorded of one image at a time, not of {len(images)}")
    recorder.image_size = (images.shape[2], images.shape[3])


def _note_vit(recorder: Recorder, block: TransformerBlock, module: Any, arguments: tuple[Tensor], _: Tensor) -> None:
    """timm's attention: queries, keys and values as its unfused path computes them."""
    with torch.no_grad():
        (x,) = arguments
        batch, tokens, _width = x.shape
        qkv = module.qkv(x).view(batch, tokens, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = module.q_norm(query), module.k_norm(key)
    place = global_tokens(token_grid(recorder.image_size, PATCH), stride=block.stride)
    recorder.store(block, place, query, key, value, None)


def _observe_levit(recorder: Recorder, block: TransformerBlock, query: Tensor, key: Tensor, value: Tensor,
                   bias: Tensor) -> None:  # fmt: skip
    attention: Any = block.attention
    place = global_tokens(recorder.grids[block.name], stride=block.stride, query_stride=attention.query_stride)
    recorder.store(block, place, query, key, value, bias)


def _observe_windows(recorder: Recorder, block: TransformerBlock, query: Tensor, key: Tensor, value: Tensor,
                     bias: Tensor) -> None:  # fmt: skip
    mixing: Any = block.mixing
    grid = recorder.grids[block.name]
    padded, shift = mixing.padded(grid), mixing.shift(grid)
    mask = shift_mask(padded, mixing.window, shift).numpy() if any(shift) else None
    place = window_tokens(grid, stride=block.stride, window=mixing.window, padded=padded, shift=shift, mask=mask)
    recorder.store(block, place, query, key, value, bias)


def _keep_attended(recorder: Recorder, name: str, attended: Tensor) -> None:
    if attended.requires_grad:
        attended.retain_grad()
    recorder.attended[name] = attended


@contextmanager
def _observed(module: Any, observer: Callable[..., None]) -> Iterator[None]:
    module.observer = observer
    try:
        yield
    finally:
        del module.observer  # the class's None shows again


def _watch(recorder: Recorder, block: TransformerBlock, stack: ExitStack) -> None:
    """Put hooks and observers on one block; they go when ``stack`` is closed."""
    attention: Any = block.attention
    name = block.name

    def keep(hook: Any) -> None:
        stack.callback(hook.remove)

    def norm_of(branch: str, output: Tensor) -> None:
        recorder.branches.setdefault(name, {})[branch] = float(torch.linalg.vector_norm(output.detach().float()))

    if block.kind == "vit":
        keep(attention.register_forward_hook(partial(_note_vit, recorder, block)))
    elif block.kind == "levit":
        keep(attention.register_forward_pre_hook(lambda _, args: recorder.grids.__setitem__(name, args[1])))
        stack.enter_context(_observed(attention, partial(_observe_levit, recorder, block)))
    else:
        mixing: Any = block.mixing
        keep(
            mixing.register_forward_pre_hook(lambda _, args: recorder.grids.__setitem__(name, tuple(args[0].shape[2:])))
        )
        stack.enter_context(_observed(attention, partial(_observe_windows, recorder, block)))
        if mixing.conv_dw is not None:
            keep(attention.register_forward_hook(lambda _, __, output: norm_of("attention", output)))
            keep(mixing.conv_dw.register_forward_hook(lambda _, __, output: norm_of("convolution", output)))
    if recorder.gradients:
        if block.kind == "windows":
            keep(attention.register_forward_hook(lambda _, __, output: _keep_attended(recorder, name, output)))
        else:
            keep(attention.proj.register_forward_pre_hook(lambda _, args: _keep_attended(recorder, name, args[0])))


@contextmanager
def recording(network: nn.Module, blocks: list[TransformerBlock], *, gradients: bool = False) -> Iterator[Recorder]:
    """Record the attention of ``blocks`` while ``network`` computes one image, (1, C, H, W), in this block.

    With ``gradients`` (and autograd on) what each layer attended to keeps its gradient, for
    `LayerAttention.weights_gradient`.
    """
    recorder = Recorder(gradients)
    with ExitStack() as stack:
        hook = network.register_forward_pre_hook(partial(_note_image_size, recorder))
        stack.callback(hook.remove)
        for block in blocks:
            _watch(recorder, block, stack)
        yield recorder


@torch.no_grad()
def recorded(network: nn.Module, blocks: list[TransformerBlock], image: Tensor) -> tuple[Tensor, list[LayerAttention]]:
    """Logits (K, H, W) of an image (C, H, W), and the attention of all ``blocks`` to it."""
    with recording(network, blocks) as recorder:
        logits = network(image[None])
    return logits[0], recorder.finished()


def as_array(values: Tensor) -> np.ndarray:
    """In fp64, for sums over many small weights."""
    return values.detach().double().numpy()
