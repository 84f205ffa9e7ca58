"""nnU-Net's sliding window over the slices of a volume, with many windows and mirrored copies in one batch.

Every voxel gets the same sums in the same order as in nnU-Net, which goes through slices, windows and mirrored copies
one by one: windows of one slice are added in nnU-Net's order, and slices do not overlap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

from nnunetv2_levit.inference.backends import Backend, precision
from nnunetv2_levit.inference.batching import BatchRunner, is_out_of_memory, release_cached_memory


@dataclass(frozen=True)
class Windows:
    """The same window, with corner (top, left), in the consecutive slices from ``first`` to before ``last``."""

    top: int
    left: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def of(self, volume: Tensor, patch_size: Sequence[int]) -> Tensor:
        """View (C, slices, h, w) of ``volume`` (C, D, H, W)."""
        rows = slice(self.top, self.top + patch_size[0])
        columns = slice(self.left, self.left + patch_size[1])
        return volume[:, self.first : self.last, rows, columns]


def flips(mirror_axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Axes of (N, C, h, w) to flip for each copy, the unflipped one first, in nnU-Net's order."""
    axes = [axis + 2 for axis in mirror_axes or ()]
    return [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]


def window_batches(corners: Sequence[tuple[int, int]], slices: int, at_once: int) -> Iterator[list[Windows]]:
    """All windows of all slices, one corner after another, in groups of at most ``at_once``."""
    group: list[Windows] = []
    room = at_once
    for top, left in corners:
        first = 0
        while first < slices:
            last = min(slices, first + room)
            group.append(Windows(top, left, first, last))
            room -= last - first
            first = last
            if room == 0:
                yield group
                group, room = [], at_once
    if group:
        yield group


def mirrored_mean(
    runner: BatchRunner, backend: Backend, images: Tensor, mirrorings: Sequence[tuple[int, ...]]
) -> Tensor:
    """Mean of the logits (N, K, h, w) of ``images`` (N, C, h, w) and of their mirrored copies, flipped back."""
    copies = [torch.flip(images, axes) if axes else images for axes in mirrorings]
    outputs = runner.run(backend, torch.cat(copies) if len(copies) > 1 else images).split(len(images))
    # a tensor of its own: inference outputs may be views of a buffer that the back-end reuses
    total = outputs[0].clone() if len(outputs) > 1 else outputs[0]
    for axes, output in zip(mirrorings[1:], outputs[1:], strict=True):
        total += torch.flip(output, axes)
    if len(outputs) > 1:
        total /= len(outputs)
    return total


@dataclass
class SlidingWindow:
    """Settings of one model; ``logits`` predicts one preprocessed volume with one back-end.

    ``accumulator`` is the precision of the sums over overlapping windows. nnU-Net's is fp16: it decides the labels of
    voxels at which two classes come within its rounding.
    """

    patch_size: tuple[int, int]
    num_classes: int
    step_size: float
    use_gaussian: bool
    mirror_axes: Sequence[int] | None
    runner: BatchRunner
    results_on_device: bool
    accumulator: torch.dtype = torch.half

    def logits(self, backend: Backend, volume: Tensor) -> Tensor:
        """Logits (K, D, H, W), in the computer's memory, of ``volume`` (C, D, H, W)."""
        padded, inside = pad_nd_image(volume, self.patch_size, "constant", {"value": 0}, True, None)
        place = self.runner.device if self.results_on_device else torch.device("cpu")
        with precision(self.runner.device):
            try:
                result = self._sums(backend, padded, place)
            except RuntimeError as error:
                if place.type == "cpu" or not is_out_of_memory(error):
                    raise
                result = None
            if result is None:  # as nnU-Net does where the results do not fit
                release_cached_memory(self.runner.device)
                result = self._sums(backend, padded, torch.device("cpu"))
        without_padding = (slice(None), *inside[1:])
        return result[without_padding].cpu()

    def _importance(self, place: torch.device) -> Tensor:
        if not self.use_gaussian:
            return torch.ones(self.patch_size, dtype=torch.half, device=place)
        # rounded to fp16 as in nnU-Net, whatever the accumulator: a mean with these weights, not with finer ones
        return compute_gaussian(tuple(self.patch_size), sigma_scale=1.0 / 8, value_scaling_factor=10, device=place)

    def _sums(self, backend: Backend, volume: Tensor, place: torch.device) -> Tensor:
        volume = volume.to(place)
        slices, height, width = volume.shape[1:]
        rows, columns = compute_steps_for_sliding_window((height, width), self.patch_size, self.step_size)
        corners = [(top, left) for top in rows for left in columns]
        mirrorings = flips(self.mirror_axes)
        importance = self._importance(place)

        sums = torch.zeros((self.num_classes, slices, height, width), dtype=self.accumulator, device=place)
        weights = torch.zeros((1, 1, height, width), dtype=self.accumulator, device=place)
        for top, left in corners:
            Windows(top, left, 0, 1).of(weights, self.patch_size).add_(importance)

        probe = Windows(0, 0, 0, 1).of(volume, self.patch_size).transpose(0, 1)
        at_once = max(1, self.runner.settle(backend, probe) // len(mirrorings))
        for group in window_batches(corners, slices, at_once):
            images = torch.cat([windows.of(volume, self.patch_size) for windows in group], dim=1).transpose(0, 1)
            predicted = mirrored_mean(self.runner, backend, images, mirrorings).to(place)
            predicted = predicted * importance.to(predicted.dtype) if self.use_gaussian else predicted
            for windows, part in zip(group, predicted.split([len(w) for w in group]), strict=True):
                windows.of(sums, self.patch_size).add_(part.transpose(0, 1))
        return sums.div_(weights)
