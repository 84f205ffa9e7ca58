"""Pretrained weights: where they are looked for, how files are read, how a checkpoint is fitted to a network.

Nothing falls back silently: weights are loaded whole, with a report, or an error says which file to put where.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError

WEIGHTS_FOLDER_VARIABLE = "nnUNet_levit_weights"
IMAGENET_SIZE = (224, 224)  # what timm's checkpoints were trained at

# Ends of names in checkpoints that are no weights: a count, and an index table of earlier versions of timm.
COUNT, INDEX_TABLE = "num_batches_tracked", "attention_bias_idxs"

WeightSource = str | Path


@dataclass(frozen=True)
class PretrainedPart:
    """One checkpoint of timm that a network takes weights from.

    Attributes:
        tag: timm's name of it.
        renaming: pairs of a regular expression for names in the network's state dict and the name of the same tensor in
            the checkpoint; the first expression that matches the whole name holds.
    """

    tag: str
    renaming: tuple[tuple[str, str], ...]

    def timm_name(self, name: str) -> str | None:
        """Name in the checkpoint of a tensor of the network; None for what the checkpoint does not hold."""
        for pattern, replacement in self.renaming:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement)
        return None


@dataclass
class LoadReport:
    """What a checkpoint gave a module.

    Names loaded, those of them adapted (and how), those of the module that stay as initialised, and those of the file
    that were not used.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    random: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @classmethod
    def merged(cls, reports: "Sequence[LoadReport]") -> "LoadReport":
        """One report of several checkpoints that went into one module."""
        adapted = {name: done for report in reports for name, done in report.adapted.items()}
        return cls(
            source=" + ".join(report.source for report in reports),
            loaded=[name for report in reports for name in report.loaded],
            adapted=adapted,
            random=[name for name in reports[0].random if all(name in report.random for report in reports)],
            unused=[name for report in reports for name in report.unused],
        )

    def summary(self) -> str:
        """One line for a log."""
        adapted = "; ".join(sorted(set(self.adapted.values()))) or "none"
        unused = ", ".join(sorted({name.split(".")[0] for name in self.unused})) or "-"
        random = ", ".join(sorted({".".join(name.split(".")[:2]) for name in self.random})) or "-"
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded, {len(self.adapted)} of them adapted ({adapted}); "
            f"{len(self.random)} stay as initialised ({random}); {len(self.unused)} of the file unused ({unused})"
        )


def weights_folder() -> Path:
    """Folder for weight files: the variable ``nnUNet_levit_weights``, else the user's cache."""
    folder = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    return Path(folder) if folder else Path.home() / ".cache" / "nnunetv2_levit"


def find_weights(source: WeightSource) -> Path:
    """Path of a weight file: ``source`` itself if it is a file, else a timm tag's file in the weights folder, else the
    Hugging Face hub's cache or the hub.

    Raises:
        UserError: the weights can't be had; the sentence says which file to put where.
    """
    if Path(source).is_file():
        return Path(source)
    tag = str(source)
    if os.sep in tag or tag.endswith((".safetensors", ".pth", ".pt", ".bin")):
        raise UserError(
            f"there is no weight file {tag}: give an existing file or a timm tag such as levit_384.fb_dist_in1k"
        )
    candidates = [weights_folder() / f"{tag}{ending}" for ending in (".safetensors", ".pth", ".pt", ".bin")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"timm/{tag}", "model.safetensors"))
    except Exception as error:
        raise UserError(
            f"the pretrained weights {tag} are neither at {candidates[0]} nor to be had from the hub "
            f"({type(error).__name__}): on a machine with internet, download "
            f"https://huggingface.co/timm/{tag}/resolve/main/model.safetensors and put it at {candidates[0]} "
            f"(or in the folder that the variable {WEIGHTS_FOLDER_VARIABLE} names)"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a plain state dict (possibly under "model" or "state_dict").

    Raises:
        UserError: the file is unreadable, or holds something else than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"the weight file {path} can't be read ({type(error).__name__}): it must be a whole safetensors file or a "
            "plain state dict written by torch.save"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"the weight file {path} holds no plain state dict: it must map names to tensors")
    return dict(state)


def adapt_first_convolution(kernel: Tensor, in_channels: int) -> tuple[Tensor, str]:
    """timm's rule for another channel count (one channel: kernels summed), and what was done."""
    note = f"first convolution from {kernel.shape[1]} to {in_channels} channels"
    return adapt_input_conv(in_channels, kernel), note


Adapt = Callable[[str, Tensor, Tensor], tuple[Tensor, str | None]]


def _fitted(value: Tensor, target: Tensor) -> Tensor | None:
    """The tensor as the target takes it, a 1x1 convolution as a linear layer too; None where shapes differ."""
    if value.ndim == 4 and target.ndim == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    return value if value.shape == target.shape else None


def copy_weights(module: nn.Module, path: Path, *, part: PretrainedPart, adapt: Adapt) -> LoadReport:
    """Copy tensors of a checkpoint file into ``module``: all those that ``part`` names, or none.

    Args:
        adapt: given the name in the module, the tensor of the checkpoint and the one in the module, returns the tensor
            to load and what was done to it (None for nothing).

    Raises:
        UserError: the file can't be read, lacks a tensor, or has one of another shape.
    """
    state, wanted = read_state_dict(path), module.state_dict()
    use = f"use the checkpoint {part.tag}"
    report = LoadReport(source=str(path))
    used = set()
    for name, target in wanted.items():
        source = part.timm_name(name)
        if source is None or (source.endswith(COUNT) and source not in state):
            report.random.append(name)
            continue
        if source not in state:
            raise UserError(
                f"the weight file {path} lacks {source}: the checkpoint {part.tag} is needed, with timm's names"
            )
        try:
            value, done = adapt(name, state[source], target)
        except UserError as error:
            raise UserError(f"{source} in {path} does not fit ({error}): {use}") from error
        fitted = _fitted(value, target)
        if fitted is None:
            raise UserError(
                f"{source} in {path} has shape {tuple(value.shape)} where {tuple(target.shape)} is needed: {use}"
            )
        if done is not None:
            report.adapted[name] = done
        wanted[name] = fitted
        report.loaded.append(name)
        used.add(source)
    report.unused = [name for name in state if name not in used and not name.endswith(INDEX_TABLE)]
    module.load_state_dict(wanted)
    return report
