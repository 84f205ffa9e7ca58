"""Pretrained weights: where they are looked for, how files are read, how a checkpoint is fitted to a network.

Nothing falls back silently: weights are loaded whole, with a report, or an error says which file to put where.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.attention_bias import BiasPolicy, resize_attention_bias_table
from nnunetv2_levit.network_architectures.levit_encoder import LeViTEncoder, LeViTVariant

WEIGHTS_FOLDER_VARIABLE = "nnUNet_levit_weights"
IMAGENET_SIZE = (224, 224)


@dataclass
class LoadReport:
    """What a checkpoint gave: parameter names loaded as they are, adapted (with how), and left unused in the file."""

    source: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def summary(self) -> str:
        adapted = "; ".join(sorted(set(self.adapted.values()))) or "none"
        unused = ", ".join(sorted({name.split(".")[0] for name in self.unused})) or "-"
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded, {len(self.adapted)} of them adapted ({adapted}), "
            f"{len(self.unused)} of the file unused ({unused})"
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


def load_levit_encoder(
    encoder: LeViTEncoder, source: str | Path, *, variant: LeViTVariant, bias_policy: BiasPolicy = "extend"
) -> LoadReport:
    """Load a LeViT classifier's weights (timm's names, trained at 224 x 224) into an encoder.

    The first convolution is adapted to the channel count by timm's rule (kernels summed for one channel), the bias
    tables are resized by ``bias_policy``; the classifier heads are left out. A checkpoint of ``torch.nn.Conv2d`` form
    (timm's ``levit_conv_*``) fits as well.

    Raises:
        UserError: the file can't be had or read, lacks a tensor, or has one of another shape.
    """
    path = find_weights(source)
    state = read_state_dict(path)
    state = {name: value for name, value in state.items() if not name.endswith("attention_bias_idxs")}
    wanted = encoder.state_dict()
    old_grids, new_grids = encoder.bias_grids(IMAGENET_SIZE), encoder.bias_grids(encoder.image_size)
    report = LoadReport(source=str(source))

    for name, target in wanted.items():
        if name not in state:
            raise UserError(
                f"the weight file {path} lacks {name}: a checkpoint of {variant.timm_tag} is needed, with timm's names "
                "(networks with identity attention have no pretrained weights)"
            )
        value = state[name]
        if name in new_grids and value.shape[0] == target.shape[0]:
            if value.shape[1] != old_grids[name][0] * old_grids[name][1]:
                raise UserError(
                    f"{name} in {path} has {value.shape[1]} offsets where a model trained at 224 x 224 has "
                    f"{old_grids[name][0] * old_grids[name][1]}: use the checkpoint {variant.timm_tag}"
                )
            if old_grids[name] != new_grids[name]:
                value = resize_attention_bias_table(
                    value, old_grid=old_grids[name], new_grid=new_grids[name], policy=bias_policy
                )
                report.adapted[name] = f"attention biases resized by policy {bias_policy}"
        elif name == "stem.conv1.linear.weight" and value.shape[1] != target.shape[1]:
            report.adapted[name] = f"first convolution from {value.shape[1]} to {target.shape[1]} channels"
            value = adapt_input_conv(target.shape[1], value)
        elif value.ndim == 4 and target.ndim == 2 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        if value.shape != target.shape:
            raise UserError(
                f"{name} in {path} has shape {tuple(value.shape)} where {tuple(target.shape)} is needed: use the "
                f"checkpoint {variant.timm_tag}"
            )
        wanted[name] = value
        report.loaded.append(name)
    report.unused = [name for name in state if name not in wanted]
    encoder.load_state_dict(wanted)
    return report
