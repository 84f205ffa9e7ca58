"""Kernels that a forward pass launches on a CUDA device and the memory they cross, counted without such a device.

python docs/lab/experiments/kernels.py -o result.json [--networks …] [--batch 16] [--modes inference folded]

It runs on fake tensors that pretend to be on CUDA, under fp16 autocast. Every operation that is not a mere view
counts as one kernel (some are several) that reads its inputs and writes its outputs once. Attention counts as one fused
kernel; fp16 copies of weights count, which autocast makes at each call. So it says how often memory is crossed and how
much there is to launch, not how long it takes.
"""

import argparse
import json
import warnings
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_levit.benchmark.networks import build
from nnunetv2_levit.inference.backends import memory_format
from nnunetv2_levit.network_architectures.folding import fold_batch_norm

NO_KERNEL = ("aten.empty", "aten._unsafe_view", "aten._reshape_alias", "aten.detach", "aten.promote_types", "prim")
CLASSES = 9
FAKE = FakeTensorMode()  # one for all, so that constants of sizes can be kept
with suppress(ImportError):  # the version before has none
    from nnunetv2_levit.network_architectures.layers import size_constants

    size_constants._build = cache(size_constants._build)  # the network keeps real ones alone


def size_of(tensors) -> int:
    return sum(x.numel() * x.element_size() for x in tree_leaves(tensors) if isinstance(x, torch.Tensor))


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kernels, self.bytes = Counter(), Counter()

    def add(self, name, tensors):
        self.kernels[name] += 1
        self.bytes[name] += size_of(tensors)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view and not str(function).startswith(NO_KERNEL):
            self.add(str(function.overloadpacket), (args, kwargs, out))
        return out


class FusedAttention(TorchFunctionMode):
    """Shapes and memory layout of CUDA's fused attention: without CUDA torch would choose another kernel."""

    def __init__(self, counting):
        super().__init__()
        self.counting = counting

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        query, key, value = args[:3]
        batch, heads, tokens, _ = query.shape
        out = torch.empty((batch, tokens, heads, value.shape[3]), dtype=query.dtype, device="cuda").transpose(1, 2)
        self.counting.add(f"attention {str(out.dtype).removeprefix('torch.')}", (query, key, value, out))
        return out


def pretend_cuda(network: nn.Module) -> None:
    """Replace all tensors by fake ones; inside a FakeTensorMode."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
                    tensors[name] = nn.Parameter(fake) if tensors is module._parameters else fake


def count(name: str, mode: str, batch: int, patch: tuple[int, int]) -> Counting:
    network = build(name, in_channels=1, num_classes=CLASSES, patch_size=patch).eval()
    layout = memory_format(network)
    if mode == "folded":
        from nnunetv2_levit.inference.backends import halve_weights

        network = halve_weights(fold_batch_norm(network))
    network = network.to(memory_format=layout)
    with FAKE:
        pretend_cuda(network)
        images = torch.empty(batch, 1, *patch, device="cuda").contiguous(memory_format=layout)
        torch.set_autocast_dtype("cuda", torch.half)
        torch.set_autocast_enabled("cuda", True)  # torch.autocast would refuse, for want of CUDA
        with torch.no_grad(), Counting() as counting, FusedAttention(counting):
            network(images)
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
    return counting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--networks", nargs="+", default=["nnunet_plain", "levit_unet_384", "unet2022_tiny"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, nargs=2, default=(224, 224))
    parser.add_argument("--modes", nargs="+", choices=("inference", "folded"), default=["inference", "folded"])
    parser.add_argument("--operations", action="store_true", help="print each operation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in arguments.networks:
        for mode in arguments.modes:
            counting = count(name, mode, arguments.batch, tuple(arguments.patch))
            total, mib = sum(counting.kernels.values()), sum(counting.bytes.values()) / arguments.batch / 2**20
            print(f"{name} {mode}: {total} kernels, {mib:.0f} MiB an image", flush=True)
            operations = {
                operation: {
                    "kernels": number,
                    "mib_per_image": round(counting.bytes[operation] / arguments.batch / 2**20, 1),
                }
                for operation, number in counting.kernels.most_common()
            }
            if arguments.operations:
                print(*(f"  {operation}: {numbers}" for operation, numbers in operations.items()), sep="\n")
            row = {"network": name, "mode": mode, "kernels": total, "mib_per_image": round(mib)}
            rows.append({**row, "operations": operations})
    if arguments.output:
        facts = {"torch": torch.__version__, "patch_size": arguments.patch, "batch_size": arguments.batch, "rows": rows}
        arguments.output.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
