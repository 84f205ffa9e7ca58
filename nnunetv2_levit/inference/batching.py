"""How many images go through a network at once: chosen from free memory, halved where memory runs out."""

import ctypes
import sys

import torch
from torch import Tensor

from nnunetv2_levit.inference.backends import Backend

# On a CPU larger batches pay only where freed memory is kept (docs/lab/prediction.md); 64 were not compared on a GPU.
LARGEST_BATCH = {"cuda": 64, "cpu": 2}
BATCH_WITH_KEPT_MEMORY = 4
MEMORY_SHARE = 0.7  # of what is free; the rest is for results, fragmentation and other programs


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on a GPU or in the computer."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def release_cached_memory(device: torch.device) -> None:
    """Give what the allocator keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


_memory_is_kept = False


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, where that can be asked for (glibc); says whether it does.

    By default every large activation goes back to the system when its layer is done, and the next one costs the page
    faults of fresh memory: for batches of feature maps about a tenth of the time on a CPU. For commands alone: there is
    no way back, and a caller's process is not ours.
    """
    global _memory_is_kept
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    trim_threshold, most_mapped_blocks = -1, -4  # glibc's numbers of these parameters
    _memory_is_kept = bool(mallopt(most_mapped_blocks, 0) and mallopt(trim_threshold, 2**31 - 1))
    return _memory_is_kept


def _fitting_batch(backend: Backend, images: Tensor, largest: int) -> int:
    """The largest batch that free GPU memory allows, from what one image takes."""
    device = images.device
    backend(images[:1])  # what is allocated once (workspaces, compiled code) is not the image's
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    backend(images[:1])
    torch.cuda.synchronize(device)
    per_image = max(1, torch.cuda.max_memory_allocated(device) - before)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - before
    return max(1, min(largest, int(MEMORY_SHARE * free / per_image)))


class BatchRunner:
    """Runs any number of images through a back-end in batches.

    ``batch_size`` is None until the first images come, unless given; it only falls, when memory runs out.
    """

    def __init__(self, device: torch.device, batch_size: int | None = None) -> None:
        self.device, self.batch_size = device, batch_size

    def settle(self, backend: Backend, images: Tensor) -> int:
        """Choose the batch size, by the first of ``images`` (N, C, h, w), where that has not happened yet."""
        if self.batch_size is None:
            largest = LARGEST_BATCH.get(self.device.type, LARGEST_BATCH["cpu"])
            if self.device.type == "cpu" and _memory_is_kept:
                largest = BATCH_WITH_KEPT_MEMORY
            if self.device.type == "cuda":
                try:
                    largest = _fitting_batch(backend, images.to(self.device), largest)
                except torch.cuda.OutOfMemoryError:
                    largest = 1
                    release_cached_memory(self.device)
            self.batch_size = largest
        return self.batch_size

    def run(self, backend: Backend, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) of ``images`` (N, C, h, w), on the runner's device.

        Raises:
            RuntimeError: memory does not suffice for a single image.
        """
        outputs: list[Tensor] = []
        done = 0
        while done < len(images):
            batch = images[done : done + self.settle(backend, images)]
            try:
                outputs.append(backend(batch.to(self.device, non_blocking=True)))
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                self.batch_size = max(1, len(batch) // 2)
            else:
                done += len(batch)
                continue
            release_cached_memory(self.device)  # not in the handler: its traceback still holds the activations
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
