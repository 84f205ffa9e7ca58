"""What TransFuse, TransUNet, 2D UNETR and 2D CATS have in common: a vision transformer on patches of 16 pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.cnn_encoder import timm_name
from nnunetv2_levit.network_architectures.grids import Grid, check_channels, pad_to_multiple, token_grid
from nnunetv2_levit.network_architectures.pretrained import (
    LoadReport,
    adapt_first_convolution,
    copy_weights,
    find_weights,
    read_state_dict,
)
from nnunetv2_levit.network_architectures.vit_encoder import PATCH, ViTEncoder, resize_position_embedding

Source = str | Path


@dataclass(frozen=True)
class PretrainedPart:
    """One checkpoint of timm: its tag, and from prefixes of names here to those of the same tensors there."""

    tag: str
    prefixes: dict[str, str]

    def timm_name(self, name: str) -> str | None:
        """Name in the checkpoint of a tensor of the network; None for what the checkpoint does not hold."""
        for ours, theirs in self.prefixes.items():
            if name.startswith(ours):
                return theirs + timm_name(name.removeprefix(ours))
        return None


class ViTNetwork(nn.Module):
    """Base of the networks with a `ViTEncoder` named ``vit``; a subclass defines ``_decode`` and calls ``_complete``.

    Images are padded with zeros to multiples of 16 pixels and the outputs cropped back, so any size passes.

    Attributes:
        deep_supervision_scales: resolution of each output relative to the image.
        pretrained_parts: whose weights ``load_pretrained`` takes, in this order.
    """

    deep_supervision_scales: tuple[float, ...]
    vit: ViTEncoder

    def __init__(self, *, in_channels: int, image_size: Grid, auxiliary_heads: bool) -> None:
        super().__init__()
        self.in_channels, self.image_size = in_channels, image_size
        self.auxiliary_heads = auxiliary_heads
        self.deep_supervision = auxiliary_heads
        self.pretrained_parts: tuple[PretrainedPart, ...] = ()
        self.pretrained_report: LoadReport | None = None

    def _complete(self, pretrained: Source | Sequence[Source] | None) -> None:
        """Last step of construction: channels-last memory, which convolutions prefer, and the pretrained weights."""
        self.to(memory_format=torch.channels_last)
        if pretrained is not None:
            self.load_pretrained(pretrained)

    def _decode(self, x: Tensor, *, auxiliary: bool) -> list[Tensor]:
        """Logits of a padded image: full resolution first, then the auxiliary ones if asked for."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_channels(x, self.in_channels)
        auxiliary = self.deep_supervision and self.auxiliary_heads
        outputs = []
        for logits, scale in zip(
            self._decode(pad_to_multiple(x, PATCH), auxiliary=auxiliary), self.deep_supervision_scales, strict=False
        ):
            # nnU-Net rounds the sizes of the downsampled targets
            outputs.append(logits[:, :, : round(x.shape[2] * scale), : round(x.shape[3] * scale)])
        return outputs if auxiliary else outputs[0]

    def adapt_state_dict(self, state: dict[str, Tensor], *, image_size: Grid) -> dict[str, Tensor]:
        """A state dict of this network built for another ``image_size``, its position embedding resized to this one."""
        adapted = dict(state)
        if "vit.pos_embed" in adapted:
            adapted["vit.pos_embed"] = resize_position_embedding(
                adapted["vit.pos_embed"], old_grid=token_grid(image_size, PATCH), new_grid=self.vit.grid
            )
        return adapted

    def load_pretrained(self, source: Source | Sequence[Source]) -> LoadReport:
        """Load ImageNet classifiers into the encoders: one tag or file for each of ``pretrained_parts``.

        First convolutions are adapted to the channel count, the position embedding to the patch size; decoders, fusion
        and heads stay random. The report is kept as ``pretrained_report``.

        Raises:
            UserError: a file can't be had or read, or does not fit; or their number is wrong.
        """
        sources = [source] if isinstance(source, str | Path) else list(source)
        if len(sources) != len(self.pretrained_parts):
            wanted = ", ".join(part.tag for part in self.pretrained_parts)
            raise UserError(
                f"{type(self).__name__} takes pretrained weights from {len(self.pretrained_parts)} checkpoints, in "
                f"this order: {wanted}; got {len(sources)}"
            )
        paths = [find_weights(one) for one in sources]
        reports = [self._load_part(part, path) for part, path in zip(self.pretrained_parts, paths, strict=True)]
        self.pretrained_report = LoadReport(
            source=" + ".join(report.source for report in reports),
            loaded=[name for report in reports for name in report.loaded],
            adapted={name: done for report in reports for name, done in report.adapted.items()},
            random=[name for name in reports[0].random if all(name in report.random for report in reports)],
            unused=[name for report in reports for name in report.unused],
        )
        return self.pretrained_report

    def _load_part(self, part: PretrainedPart, path: Path) -> LoadReport:
        def adapt(name: str, value: Tensor, target: Tensor) -> tuple[Tensor, str | None]:
            if name.startswith("vit."):
                return self.vit.adapt_pretrained(name, value, target)
            if value.ndim == 4 and target.ndim == 4 and target.shape[1] == self.in_channels != value.shape[1]:
                return adapt_first_convolution(value, target.shape[1])
            return value, None

        state = read_state_dict(path)
        names = {target: name for target in self.state_dict() if (name := part.timm_name(target)) is not None}
        # a count of batches is no weight, and not every file has one
        names = {t: s for t, s in names.items() if s in state or not s.endswith("num_batches_tracked")}
        return copy_weights(self, state, names=names, path=path, needed=part.tag, adapt=adapt)
