"""Class activation maps (Grad-CAM and its like) of any trained 2D model, nnU-Net's own included, by grad-cam.

A class activation map weights the channels of one layer by how much a structure's logits, summed over the structure's
pixels, depend on them. It knows nothing of attention, so it is there for every network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit.analysis.analysed_model import AnalysedModel, load_analysed_model
from nnunetv2_levit.analysis.case_slices import SKIPPED, AnalysedPatch, chosen_patches, find_analysed_cases
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.html_page import Picture, html_page
from nnunetv2_levit.figures import Backdrop, Map, colours_of, draw_maps
from nnunetv2_levit.files import check_output_folder, write_json, write_text, write_whole
from nnunetv2_levit.network_architectures.layers.layer_norm import LayerNorm
from nnunetv2_levit.plain_text import markdown_text

# the library's classes by the names of the command line
METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "eigengradcam": "EigenGradCAM",
}
CHANNELS_FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.Upsample, nn.PixelShuffle,
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd,
)  # fmt: skip
PAGE, NUMBERS = "class_activation.html", "class_activation.json"


def _method(name: str) -> Any:
    """The library's class of a method.

    Raises:
        UserError: no such method, or the library is not installed.
    """
    if name not in METHODS:
        raise UserError(f"the method {name!r} is unknown: choose one of {', '.join(METHODS)}")
    try:
        import pytorch_grad_cam
    except ImportError:
        raise UserError(
            "class activation needs the grad-cam library: pip install 'nnunetv2_levit[class-activation]'"
        ) from None
    return getattr(pytorch_grad_cam, METHODS[name])


def feature_maps(network: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape (C, h, w) of every map that a module of ``network`` returns for an image, in the order of the pass.

    What has its channels last, such as the output of a linear layer, is left out. Of blocks and activations the order
    is told by rows and columns, which a convolution, norm, pooling or linear layer has somewhere in the network.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    last: dict[str, bool | None] = {}

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1:  # windows are many
            shapes[name], last[name] = tuple(output.shape[1:]), _channels_last(module)

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            network(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    grids = {shape[:2] if last[name] else shape[1:] for name, shape in shapes.items() if last[name] is not None}
    return {
        name: shape
        for name, shape in shapes.items()
        if last[name] is False or (last[name] is None and shape[1:] in grids)
    }


def _channels_last(module: nn.Module) -> bool | None:
    """Whether what a module returns has its channels last; None for modules that work on either."""
    if isinstance(module, nn.Linear) or type(module) in (nn.LayerNorm, LayerNorm):
        return True
    return False if isinstance(module, CHANNELS_FIRST) else None


def coarsest_layer(shapes: dict[str, tuple[int, ...]]) -> str:
    """The last layer with the smallest map, which is the bottleneck of an encoder and decoder.

    Maps of a single pixel, such as those of channel gates, are left out.
    """
    sizes = {name: shape[1] * shape[2] for name, shape in shapes.items() if shape[1] * shape[2] > 1}
    smallest = min(sizes.values())
    return [name for name, size in sizes.items() if size == smallest][-1]


def _chosen_layers(network: nn.Module, layers: Sequence[str], image: Tensor) -> list[str]:
    shapes = feature_maps(network, image)
    for name in layers:
        if name not in shapes:
            top = sorted({".".join(known.split(".")[:3]) for known in shapes})
            raise UserError(
                f"the network has no layer {name!r} that returns a map with its channels before rows and columns: name "
                f"others, such as {', '.join(top[:8])}"
            )
    return list(layers) or [coarsest_layer(shapes)]


class StructureTarget:
    """The logits (K, H, W) of one output channel, summed over a mask (H, W)."""

    def __init__(self, head: int, mask: np.ndarray, device: torch.device) -> None:
        self.head, self.mask = head, torch.as_tensor(mask, device=device)

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[self.head][self.mask].sum()


def activation_map(
    model: AnalysedModel, patch: AnalysedPatch, *, structure: str, layer: str, method: str = "gradcam"
) -> np.ndarray:
    """The class activation map (h, w) of a structure in one layer, from 0 to 1."""
    image = torch.from_numpy(patch.image).to(model.device)[None]
    target = StructureTarget(model.head_of(structure), patch.masks[structure], model.device)
    requires = [parameter.requires_grad for parameter in model.network.parameters()]
    target_layers = [model.network.get_submodule(layer)]
    # on a CPU the library keeps no copy of the maps, which an activation in place would overwrite
    with _method(method)(model=model.network, target_layers=target_layers, reshape_transform=torch.clone) as cam:
        result: np.ndarray = cam(input_tensor=image, targets=[target])[0]
    for parameter, before in zip(model.network.parameters(), requires, strict=True):
        parameter.requires_grad_(before)
        parameter.grad = None
    return result


def class_activation(
    model: str | Path,
    *,
    images: str | Path,
    output: str | Path,
    fold: int | str = 0,
    labels: str | Path | None = None,
    slice_index: int | None = None,
    method: str = "gradcam",
    layers: Sequence[str] = (),
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    trust_checkpoint: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Draw class activation maps of every structure in one slice of each case, for any trained 2D model.

    Writes class_activation.html, class_activation.json and a picture for each case into ``output``. Of several cases
    those without a structure are left out, and named under ``skipped``.

    Args:
        model: a trained-model folder, of this package's trainers, nnU-Net's or others.
        images: a folder of cases in nnU-Net's naming, or one file of a case.
        labels: folder of true labels, from which slice and structures are taken; otherwise from the prediction.
        slice_index: of the image file, counted from 0; by default where the structures' area is largest.
        method: one of `METHODS`.
        layers: names of modules that return maps; by default the coarsest one.

    Returns:
        What was written as class_activation.json.

    Raises:
        UserError: the grad-cam library is missing, no readable 2D model or case, or no such layer, slice or method.
    """
    output = Path(output)
    _method(method)
    analysed = load_analysed_model(
        model, fold=fold, checkpoint=checkpoint, device=device, trust_checkpoint=trust_checkpoint
    )
    cases = find_analysed_cases(analysed, Path(images))
    check_output_folder(output)
    if len(cases) > 1 and slice_index is not None:
        raise UserError(f"--slice belongs to one case, and -i holds {len(cases)}: give the file of one case with -i")
    blank = torch.zeros(analysed.trained.in_channels, *analysed.patch_size, device=analysed.device)
    chosen = _chosen_layers(analysed.network, layers, blank)
    result: dict[str, Any] = {
        "kind": "class activation",
        "version": nnunetv2_levit.__version__,
        "model": str(model),
        "trainer": analysed.trained.trainer_name,
        "fold": fold,
        "checkpoint": checkpoint,
        "method": method,
        "layers": chosen,
        "cases": [],
    }
    parts: list[str | Picture] = [
        f"# Class activation of {markdown_text(analysed.trained.trainer_name)}\n\n{method} of the layers "
        f"{markdown_text(', '.join(chosen))}, fold {fold}."
    ]
    row, column = analysed.spacing
    patches = chosen_patches(analysed, cases, labels=None if labels is None else Path(labels), slice_index=slice_index)
    for patch in tqdm(patches, total=len(cases), desc="class activation", unit="case", disable=not progress):
        backdrop = Backdrop(patch.image[0], patch.masks, colours_of(list(analysed.structures)), row / column)
        rows, shares = [], {}
        for layer in chosen:
            found = {name: activation_map(analysed, patch, structure=name, layer=layer, method=method)
                     for name in patch.masks}  # fmt: skip
            rows.append((layer, [Map(values, structure=name) for name, values in found.items()]))
            shares[layer] = {name: _share_inside(values, patch.masks[name]) for name, values in found.items()}
        picture = output / f"{patch.case}.png"
        headings = list(patch.masks)
        write_whole(
            picture,
            lambda target, rows=rows, headings=headings, backdrop=backdrop: draw_maps(  # type: ignore[misc]
                rows, headings=headings, backdrop=backdrop, scale=method, target=target
            ),
        )
        result["cases"].append(
            {"case": patch.case, "slice": patch.slice_index, "structures_from": patch.source, "share_inside": shares}
        )
        parts.append(Picture(picture, f"{patch.case}, slice {patch.slice_index}, structures from the {patch.source}"))
    drawn = {entry["case"] for entry in result["cases"]}
    result["skipped"] = [case.name for case in cases if case.name not in drawn]
    if result["skipped"]:
        parts.insert(1, f"{SKIPPED}: {markdown_text(', '.join(result['skipped']))}.")
    write_json(output / NUMBERS, result)
    write_text(output / PAGE, html_page(f"Class activation of {analysed.trained.trainer_name}", parts))
    return result


def _share_inside(values: np.ndarray, mask: np.ndarray) -> float | None:
    """Share of a map that lies in the structure."""
    total = float(values.sum())
    return None if total <= 0 else float(values[mask].sum()) / total
