"""What is timed: one step of a network in a given mode, as a callable without arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nnunetv2_levit.inference.backends import TorchBackend, memory_format, precision

# mode: what it does
MODES = {
    "inference": "forward pass of the module as it is",
    "folded": "forward pass of the predictor's copy (batch norm folded, on CUDA with fp16 weights)",
    "compiled": "the same through torch.compile",
    "graphs": "the same through torch.compile, on CUDA with graphs (its mode reduce-overhead)",
    "onnx": "the same in ONNX Runtime, on the CPU",
    "training": "forward, cross-entropy, backward, SGD step",
    "training_compiled": "the same through torch.compile",
}
Step = Callable[[], None]


@contextmanager
def cudnn_autotuning(on: bool) -> Iterator[None]:
    """Within it cuDNN times its algorithms for each new size, as nnU-Net lets it, or takes the one that it expects."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def is_autotuned(mode: str, autotune: bool) -> bool:
    """Whether cuDNN's autotuning is on in a step: in training always, as in nnU-Net."""
    return autotune or mode.startswith("training")


def make_step(network: nn.Module, mode: str, *, images: torch.Tensor, num_classes: int, autotune: bool = False) -> Step:
    """One step of ``mode`` on ``images`` (B, C, H, W); it returns when the device has done it.

    fp16 autocast on CUDA, as in nnU-Net, fp32 on a CPU. Channels-last memory, except for networks with instance norm,
    which copies every map to contiguous memory. ``autotune`` lets cuDNN time its algorithms in inference too.
    ``network`` must not be used for anything else afterwards.
    """
    device = images.device
    cuda = device.type == "cuda"
    if mode == "onnx":
        from nnunetv2_levit.inference.onnx_backend import OnnxBackend, to_onnx

        height, width = images.shape[2:]
        backend = OnnxBackend(to_onnx(network, in_channels=images.shape[1], image_size=(height, width)))

        def infer_by_onnx() -> None:
            backend(images)

        return infer_by_onnx

    layout = memory_format(network)
    images = images.contiguous(memory_format=layout)
    training = mode.startswith("training")
    if mode in ("folded", "compiled", "graphs"):
        copy = TorchBackend(network, device=device, compiled=mode == "compiled")
        if mode == "graphs":
            copy.network = torch.compile(copy.network, mode="reduce-overhead")
        forward: Callable[[torch.Tensor], torch.Tensor] = copy
    else:
        network = network.to(device).to(memory_format=layout).train(training)
        forward = torch.compile(network) if mode == "training_compiled" else network

    def infer() -> None:
        with cudnn_autotuning(autotune), torch.inference_mode(), precision(device):
            forward(images)
        if cuda:
            torch.cuda.synchronize()

    if not training:
        return infer
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    scaler = torch.amp.GradScaler("cuda", enabled=cuda)
    target = torch.randint(num_classes, (images.shape[0], *images.shape[2:]), device=device)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with cudnn_autotuning(is_autotuned(mode, autotune)):
            with precision(device):
                loss = nn.functional.cross_entropy(forward(images), target)
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if cuda:
            torch.cuda.synchronize()

    return train
