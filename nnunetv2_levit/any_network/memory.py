"""Memory of a training step, counted on shapes alone: without a GPU, without computing a number.

Every tensor that an operator of the step makes is counted from when it appears until nothing holds it any more. The
step is nnU-Net's: forward, Dice and cross-entropy, backward, SGD with momentum. On a GPU it runs in autocast to fp16.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_levit.any_network.shapes import NEEDS_NUMBERS, quiet
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.grids import Grid

GIB = 2**30
ROUNDING = 512
"""torch's allocator of CUDA memory hands out multiples of this many bytes."""
RESERVED = 0.6 * GIB
"""What the CUDA context, the kernels and cuDNN's workspaces take beside tensors, at least."""
MARGIN = 1.15
"""For fragments that the allocator can't use, and workspaces of convolutions."""
Precision = Literal["fp16", "fp32"]


class _LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators made and that are still held, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, key, size).atexit = False

    def ignore(self, tensor: Tensor) -> None:
        """Count a tensor that was there before as nothing."""
        self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step.

    Attributes:
        weights: parameters and buffers.
        optimizer: SGD's momentum.
        step: the most that images, activations, gradients and temporary tensors take at once.
    """

    weights: int
    optimizer: int
    step: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.optimizer + self.step


@contextmanager
def _fake() -> Iterator[FakeTensorMode]:
    with quiet(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice and cross-entropy, with the tensors that nnU-Net's make."""
    classes = logits.shape[1]
    probabilities = torch.softmax(logits.float(), 1)
    truth = torch.zeros(probabilities.shape, dtype=torch.bool).scatter_(1, target, 1)
    axes = (0, 2, 3)
    overlap, sums = (probabilities * truth).sum(axes), probabilities.sum(axes) + truth.sum(axes)
    return F.cross_entropy(logits.float(), target[:, 0]) - (overlap / sums).sum() / classes


def training_step_memory(
    network: nn.Module, *, batch_size: int, channels: int, image_size: Grid, precision: Precision = "fp16"
) -> StepMemory:
    """Count one step of training for images (batch_size, channels, height, width); the network is left as it is.

    Raises:
        UserError: the network's shapes depend on numbers.
    """
    try:
        return _counted(network, (batch_size, channels, *image_size), precision)
    except NEEDS_NUMBERS as error:
        raise UserError(
            f"the memory of {type(network).__name__} can't be counted, as its forward pass reads numbers of tensors "
            f"({str(error).splitlines()[0]}): give --batch instead of --gpu-memory"
        ) from error


def _counted(network: nn.Module, shape: tuple[int, ...], precision: Precision) -> StepMemory:
    autocast: AbstractContextManager = nullcontext()
    if precision == "fp16":
        autocast = torch.autocast("cpu", dtype=torch.float16)
    was_training = network.training
    network.train()
    live = _LiveBytes()
    with _fake() as fake:
        parameters: dict[str, Any] = {
            name: fake.from_tensor(value.detach()) for name, value in network.named_parameters()
        }
        buffers: dict[str, Any] = {name: fake.from_tensor(value) for name, value in network.named_buffers()}
        for name, value in network.named_parameters():
            parameters[name].requires_grad_(value.requires_grad)
        for value in (*parameters.values(), *buffers.values()):
            live.ignore(value)
        with live:
            images = torch.empty(shape)
            target = torch.zeros((shape[0], 1, *shape[2:]), dtype=torch.long)
            with autocast:
                result = torch.func.functional_call(network, {**parameters, **buffers}, (images,))
                first = result if isinstance(result, Tensor) else next(iter(tree_leaves(result)))
                loss = _loss(first, target)
            del result, first
            loss.backward()
    network.train(was_training)
    trained = [value for value in parameters.values() if value.requires_grad]
    gradients = sum(value.nbytes for value in trained)
    weights = sum(value.nbytes for value in (*parameters.values(), *buffers.values()))
    # SGD with Nesterov's momentum makes one more copy of all gradients while it steps
    return StepMemory(weights=weights, optimizer=gradients, step=max(live.most, 2 * gradients))


def gpu_memory(memory: StepMemory) -> float:
    """Bytes that a GPU should have for a step: what was counted, with a margin, and what CUDA itself takes."""
    return memory.total * MARGIN + RESERVED
