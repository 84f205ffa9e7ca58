"""Cost of networks for given patch and batch sizes: parameters, multiply-adds, time and memory."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from nnunetv2_levit.benchmark.memory import peak_memory
from nnunetv2_levit.benchmark.networks import REFERENCES, build, check_patch
from nnunetv2_levit.benchmark.steps import MODES, Step, is_autotuned, make_step
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.batching import is_out_of_memory, release_cached_memory
from nnunetv2_levit.inference.onnx_backend import require_onnx

MOST_IMAGES, MOST_REPETITIONS, MOST_CLASSES = 4096, 100_000, 1024
MEASURED_MEMORY = ("inference", "training")


def multiply_adds_of_modules(network: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass by the module's name; "" is the whole network.

    Counted are convolutions, matrix products and attention, in the form that is computed; not recurrent layers.
    """
    fused_layers = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch counts nothing in its fused transformer layers,
    try:
        # nor in the fused attention of CPUs: taken apart, attention is two matrix products
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_layers)
    counts = {name: sum(operators.values()) // 2 for name, operators in counter.get_flop_counts().items()}
    root = f"{type(network).__name__}."
    named = {name.removeprefix(root): count for name, count in counts.items() if name.startswith(root)}
    return {**named, "": counter.get_total_flops() // 2}


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-adds of one forward pass of the whole network: see `multiply_adds_of_modules`."""
    return multiply_adds_of_modules(network, images)[""]


def _settings_of(name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is set belongs to the network that is not nnU-Net's own."""
    return {} if name in REFERENCES else settings


def _check(
    networks: Sequence[str],
    *,
    patch_sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    modes: Sequence[str],
    device: str,
    repetitions: int,
    num_classes: int,
    settings: Mapping[str, Any],
) -> None:
    for what, values in {
        "network": networks,
        "patch": [f"{patch[0]}x{patch[1]}" for patch in patch_sizes],
        "batch size": batch_sizes,
        "mode": modes,
    }.items():
        if not values:
            raise UserError(f"no {what} is given: name at least one")
        for value in values:
            if list(values).count(value) > 1:
                raise UserError(f"the {what} {value} is given twice: name it once")
    limits = {
        "a batch size": (batch_sizes, MOST_IMAGES),
        "the repetitions": ([repetitions], MOST_REPETITIONS),
        "the classes": ([num_classes], MOST_CLASSES),
    }
    for what, (values, most) in limits.items():
        for value in values:
            if not 1 <= value <= most:
                raise UserError(f"{what}, {value}, must be at least 1 and at most {most}: choose another number")
    others = [name for name in networks if name not in REFERENCES]
    if settings and len(others) != 1:
        raise UserError(
            f"--set belongs to one network, and {len(others)} are named beside nnU-Net's own: name one alone"
        )
    for name in networks:
        for patch in patch_sizes:
            check_patch(name, patch, _settings_of(name, settings))
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown: choose from {', '.join(MODES)}")
    if "onnx" in modes:
        if device != "cpu":
            raise UserError("mode onnx is measured on the CPU: use --device cpu, or leave it out")
        require_onnx()


def _tried(network: nn.Module, mode: str, *, images: torch.Tensor, num_classes: int, autotune: bool) -> Step | str:
    """A step that was tried once, or why it can't be measured."""
    try:
        step = make_step(network, mode, images=images, num_classes=num_classes, autotune=autotune)
        step()
    except UserError as error:  # it can't be exported
        return str(error)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return "batch norm needs more than one value for each channel in training"
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory"
    return step


def _images(shape: tuple[int, ...], device: str) -> torch.Tensor:
    try:
        return torch.randn(shape, device=device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"memory does not suffice for images of {shape}: choose a smaller batch or patch") from None


def run(
    *,
    networks: Sequence[str],
    patch_sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int] = (1,),
    modes: Sequence[str] = ("inference",),
    device: str = "cpu",
    repetitions: int = 5,
    in_channels: int = 1,
    num_classes: int = 4,
    settings: Mapping[str, Any] | None = None,
    memory: bool = True,
    autotune: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure every network at every patch and batch size; returns the machine and one row each.

    ``settings`` are arguments of the constructor of the one network that is not nnU-Net's own. ``autotune`` is that of
    `make_step`.

    ``seconds_per_image`` of a row has a number for each mode: medians over rounds in which the networks take turns; or
    None, and the reason in ``not_measured``, where memory does not suffice, an image is too small to train on alone, or
    a network can't be exported to ONNX.

    Raises:
        UserError: an unknown network or mode, an impossible patch or batch size, or no such device.
    """
    settings = settings or {}
    _check(
        networks,
        patch_sizes=patch_sizes,
        batch_sizes=batch_sizes,
        modes=modes,
        device=device,
        repetitions=repetitions,
        num_classes=num_classes,
        settings=settings,
    )

    def new(name: str, patch: tuple[int, int]) -> nn.Module:
        return build(
            name,
            in_channels=in_channels,
            num_classes=num_classes,
            patch_size=patch,
            settings=_settings_of(name, settings),
        )

    rows = []
    jobs = [(patch, batch) for patch in patch_sizes for batch in batch_sizes]
    for patch, batch in tqdm(jobs, desc="measuring", disable=not progress):
        shape = (batch, in_channels, *patch)
        images = _images(shape, device)
        seconds: dict[str, dict[str, float | None]] = {name: dict.fromkeys(modes) for name in networks}
        reasons: dict[str, dict[str, str]] = {name: {} for name in networks}
        for mode in modes:
            steps = {}
            for name in networks:
                network = new(name, patch).to(device)
                tried = _tried(network, mode, images=images, num_classes=num_classes, autotune=autotune)
                if isinstance(tried, str):
                    reasons[name][mode] = tried
                    if progress:
                        tqdm.write(f"{name}, {mode}, batch {batch} of {patch[0]}x{patch[1]} not measured: {tried}")
                    del network
                    release_cached_memory(images.device)
                else:
                    steps[name] = tried
            for name, value in interleaved(steps, repetitions=repetitions, text=mode, progress=progress).items():
                seconds[name][mode] = value / batch
            del steps
            torch.compiler.reset()
        for name in networks:
            network = new(name, patch).eval().to(device)
            row = {
                "network": name,
                "patch_size": list(patch),
                "batch_size": batch,
                "parameters": sum(p.numel() for p in network.parameters()),
                "gmac_per_image": round(multiply_adds(network, images[:1]) / 1e9, 3),
                "seconds_per_image": seconds[name],
                "not_measured": reasons[name],
                "peak_memory_mib": {},
            }
            for mode in (mode for mode in MEASURED_MEMORY if memory and seconds[name].get(mode) is not None):
                peak = peak_memory(
                    name,
                    mode,
                    shape=shape,
                    num_classes=num_classes,
                    device=device,
                    settings=_settings_of(name, settings),
                    autotune=autotune,
                )
                row["peak_memory_mib"][mode] = round(peak, 1)
            rows.append(row)
    processor = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": processor,
        "precision": "fp16 autocast" if device == "cuda" else "fp32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "modes": list(modes),
        "cudnn_autotuning": {mode: is_autotuned(mode, autotune) for mode in modes},
        "settings": dict(settings),
        "rows": rows,
    }
