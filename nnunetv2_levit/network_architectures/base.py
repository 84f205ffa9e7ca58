"""What every network shares: argument checks, padding and cropping, deep supervision, weights, other patch sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.family import MAX_SIZE, MIN_SIZE
from nnunetv2_levit.network_architectures.layers.grids import Grid, crop, pad_to_multiple, spatial_size
from nnunetv2_levit.network_architectures.pretrained import (
    IMAGENET_SIZE,
    LoadReport,
    PretrainedPart,
    WeightSource,
    adapt_first_convolution,
    copy_weights,
    find_weights,
)

RGB = 3


class _Required(TypedDict):
    in_channels: int
    num_classes: int
    image_size: Grid


class SharedArguments(_Required, total=False):
    """Keywords of every network's constructor, which a family hands on as ``**shared``; see `SegmentationNetwork`."""

    auxiliary_heads: bool
    pretrained: WeightSource | Sequence[WeightSource] | None


def check_choice(what: str, value: object, choices: Collection[object]) -> None:
    """Raise a UserError unless ``value`` is one of ``choices``; ``what`` names it in the sentence."""
    if value not in choices:
        raise UserError(f"{what} {value!r} is unknown: choose one of {', '.join(map(str, choices))}")


def check_blocks(name: str, blocks: int | None, most: int) -> None:
    """Raise a UserError unless ``blocks`` is None or a number of transformer blocks from 1 to ``most``."""
    if blocks is not None and (isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= most):
        raise UserError(f"{name} has 1 to {most} transformer blocks, not {blocks!r}")


def output_size(image_size: Grid, scale: float) -> Grid:
    """Height and width of the output at ``scale``: nnU-Net rounds the sizes of the downsampled targets."""
    return round(image_size[0] * scale), round(image_size[1] * scale)


class SegmentationNetwork(nn.Module):
    """Base of all networks. ``forward`` takes (B, in_channels, H, W) and returns logits (B, num_classes, H, W), or with
    ``deep_supervision`` set a list of logits at ``deep_supervision_scales``.

    A family is a subclass that takes its own keywords and ``**shared``, builds an ``encoder`` and a ``decoder`` (or
    overrides ``_logits``), sets the class attributes below and ends its constructor with ``_complete``. Where its state
    dict depends on the image size it defines ``table_grids`` and ``resize_table``; for pretrained weights it sets
    ``pretrained_parts``.

    Args:
        image_size: height and width in pixels, 32 to 1024 each.
        auxiliary_heads: adds the heads for deep supervision; ``deep_supervision`` then only switches their outputs.
        pretrained: a timm tag or a file for each of ``pretrained_parts``, or None; see ``load_pretrained``.

    Attributes:
        deep_supervision_scales: resolution of each output relative to the image, the full one first.
        size_multiple: images are padded with zeros to multiples of it, and the outputs cropped back.
        table_kind: what ``table_grids`` are the grids of, for reports.
        memory_format: of the images; convolutions prefer channels-last.
        pretrained_parts: whose weights ``load_pretrained`` takes, in this order.
        pretrained_report: what was loaded, after ``load_pretrained``.

    Raises:
        UserError: an image size, channel count or class count that no network is made for.
    """

    deep_supervision_scales: tuple[float, ...]
    size_multiple: ClassVar[int] = 1
    table_kind: str = "tables"
    memory_format: torch.memory_format = torch.channels_last
    pretrained_parts: tuple[PretrainedPart, ...] = ()
    pretrained_report: LoadReport | None = None

    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: Grid,
        auxiliary_heads: bool = False,
        pretrained: WeightSource | Sequence[WeightSource] | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise UserError(f"a network needs at least one channel and one class, not {in_channels} and {num_classes}")
        size = tuple(image_size)
        if len(size) != 2 or not all(MIN_SIZE <= side <= MAX_SIZE for side in size):
            raise UserError(f"image size {size} is not (height, width) with {MIN_SIZE} to {MAX_SIZE} pixels each")
        self.in_channels, self.num_classes = in_channels, num_classes
        self.image_size: Grid = (int(size[0]), int(size[1]))
        self.auxiliary_heads = self.deep_supervision = auxiliary_heads
        self._pretrained = pretrained

    def _complete(self) -> None:
        """Last step of construction: the memory format of the weights, and the pretrained ones."""
        self.to(memory_format=self.memory_format)
        if self._pretrained is not None:
            self.load_pretrained(self._pretrained)

    # images to logits -------------------------------------------------------------------------------------------------

    def _logits(self, images: Tensor, *, auxiliary: bool) -> list[Tensor]:
        """Logits of padded images, full resolution first, then if ``auxiliary`` those of the other heads.

        Each is as large as its output or larger: what lies beyond is cropped.
        """
        return self.decoder(self.encoder(images), spatial_size(images), auxiliary=auxiliary)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise UserError(
                f"the network was built for images of shape (B, {self.in_channels}, H, W) and got "
                f"{tuple(images.shape)}: give that many channels, or build it for them"
            )
        size = spatial_size(images)
        padded = pad_to_multiple(images.contiguous(memory_format=self.memory_format), self.size_multiple)
        auxiliary = self.auxiliary_heads and self.deep_supervision
        logits = self._logits(padded, auxiliary=auxiliary)
        if not auxiliary:
            return crop(logits[0], size)
        scales = self.deep_supervision_scales
        return [crop(x, output_size(size, scale)) for x, scale in zip(logits, scales, strict=True)]

    # other patch sizes ------------------------------------------------------------------------------------------------

    def table_grids(self, image_size: Grid) -> dict[str, Grid]:
        """Grid of each table of the state dict whose shape follows the image size, if built for ``image_size``."""
        return {}

    def resize_table(self, table: Tensor, *, old_grid: Grid, new_grid: Grid) -> Tensor:
        """Such a table for another grid.

        Raises:
            UserError: it does not belong to ``old_grid``.
        """
        raise NotImplementedError

    def adapt_state_dict(self, state: dict[str, Tensor], *, image_size: Grid) -> dict[str, Tensor]:
        """A state dict of this network built for another ``image_size``, its tables resized to this one's.

        Raises:
            UserError: a table is not that of this network at ``image_size``.
        """
        old, new = self.table_grids(image_size), self.table_grids(self.image_size)
        return {
            name: self.resize_table(value, old_grid=old[name], new_grid=new[name]) if name in new else value
            for name, value in state.items()
        }

    # pretrained weights -----------------------------------------------------------------------------------------------

    def load_pretrained(self, sources: WeightSource | Sequence[WeightSource]) -> LoadReport:
        """Load ImageNet classifiers into the network: one timm tag or file for each of ``pretrained_parts``.

        First convolutions are adapted to the channel count and tables to the patch size; what no part names stays as
        initialised. The report is kept as ``pretrained_report``.

        Raises:
            UserError: a file can't be had or read, or does not fit; their number is wrong; or none fits this network.
        """
        if not self.pretrained_parts:
            name = type(self).__name__
            raise UserError(f"{name} with these options takes no pretrained weights: train it from scratch")
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        if len(sources) != len(self.pretrained_parts):
            wanted = ", ".join(part.tag for part in self.pretrained_parts)
            raise UserError(
                f"{type(self).__name__} takes pretrained weights from {len(self.pretrained_parts)} checkpoints, in "
                f"this order: {wanted}; got {len(sources)}"
            )
        paths = [find_weights(source) for source in sources]
        reports = [
            copy_weights(self, path, part=part, adapt=self._adapt_pretrained)
            for path, part in zip(paths, self.pretrained_parts, strict=True)
        ]
        self.pretrained_report = LoadReport.merged(reports)
        return self.pretrained_report

    def _adapt_pretrained(self, name: str, value: Tensor, target: Tensor) -> tuple[Tensor, str | None]:
        """A tensor of a classifier trained at 224 x 224 as this network takes it, and what was done to it."""
        grids = self.table_grids(self.image_size)
        if name in grids:
            old, new = self.table_grids(IMAGENET_SIZE)[name], grids[name]
            resized = self.resize_table(value, old_grid=old, new_grid=new)
            if old == new:
                return resized, None
            return resized, f"{self.table_kind} resized from {old[0]}x{old[1]} to {new[0]}x{new[1]} tokens"
        is_kernel = value.ndim == target.ndim == 4
        if is_kernel and value.shape[1] == RGB and target.shape[1] == self.in_channels != RGB:
            return adapt_first_convolution(value, self.in_channels)
        return value, None
