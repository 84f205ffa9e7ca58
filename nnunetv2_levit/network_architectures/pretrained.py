"""Pretrained weights: where they are looked for, how files are read, how a checkpoint is fitted to a network.

Nothing falls back silently: weights are loaded whole, with a report, or an error says which file to put where.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError

WEIGHTS_FOLDER_VARIABLE = "nnUNet_levit_weights"


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

    def summary(self) -> str:
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


def find_weights(source: str | Path) -> Path:
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

            state = load_file(path)
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


def adapt_first_convolution(kernel: Tensor, in_channels: int) -> tuple[Tensor, str | None]:
    """timm's rule for another channel count (one channel: kernels summed), and what was done."""
    if kernel.shape[1] == in_channels:
        return kernel, None
    note = f"first convolution from {kernel.shape[1]} to {in_channels} channels"
    return adapt_input_conv(in_channels, kernel), note


Adapt = Callable[[str, Tensor, Tensor], tuple[Tensor, str | None]]


def copy_weights(
    module: nn.Module,
    state: dict[str, Tensor],
    *,
    names: dict[str, str],
    path: Path,
    needed: str,
    adapt: Adapt | None = None,
) -> LoadReport:
    """Copy tensors of a checkpoint into ``module``: all those in ``names``, or none.

    Args:
        names: from a name in the module's state dict to the one in ``state``.
        path, needed: the file, and the checkpoint to use instead, for error messages.
        adapt: given the target's name, the source tensor and the target tensor, returns the tensor to load and what
            was done to it (None for nothing).

    Raises:
        UserError: a tensor is missing in the file or has another shape.
    """
    wanted = module.state_dict()
    report = LoadReport(source=str(path))
    for target, source in names.items():
        if source not in state:
            raise UserError(
                f"the weight file {path} lacks {source}: the checkpoint {needed} is needed, with timm's names"
            )
        value = state[source]
        if adapt is not None:
            value, done = adapt(target, value, wanted[target])
            if done is not None:
                report.adapted[target] = done
        if value.ndim == 4 and wanted[target].ndim == 2 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]  # a linear layer stored as a 1x1 convolution
        if value.shape != wanted[target].shape:
            raise UserError(
                f"{source} in {path} has shape {tuple(value.shape)} where {tuple(wanted[target].shape)} is needed: use "
                f"the checkpoint {needed}"
            )
        wanted[target] = value
        report.loaded.append(target)
    report.random = [name for name in wanted if name not in names]
    used = set(names.values())
    report.unused = [name for name in state if name not in used]
    module.load_state_dict(wanted)
    return report
