"""What the attention of a trained model does, and which blocks it needs: `attention` of the public API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit.analysis.analysed_model import AnalysedModel, load_analysed_model
from nnunetv2_levit.analysis.attention_report import (
    DEFINITIONS,
    case_numbers,
    write_attention_report,
    write_knock_out,
    write_pictures,
)
from nnunetv2_levit.analysis.case_slices import SKIPPED, chosen_patches, find_analysed_cases
from nnunetv2_levit.analysis.knockout_study import check_labels, check_margin, knock_out_study, validation_cases
from nnunetv2_levit.analysis.patch_analysis import analyse_patch
from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock, require_blocks
from nnunetv2_levit.analysis.transformer_share import transformer_share
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.html_page import Picture
from nnunetv2_levit.files import check_output_folder
from nnunetv2_levit.inference.case_files import Case


def _check(
    output: Path, labels: Path | None, cases: Sequence[Case], *, slice_index: int | None, queries: Sequence[Any],
    margin: float,
) -> None:  # fmt: skip
    """Raise a UserError for what can be seen to be wrong before anything is computed."""
    check_output_folder(output)
    if labels is not None and not labels.is_dir():
        raise UserError(f"there is no folder {labels}: give the one that holds the labels with --labels")
    if len(cases) > 1 and (slice_index is not None or queries):
        raise UserError(
            f"--slice and --query belong to one case, and -i holds {len(cases)}: give the file of one case with -i"
        )
    check_margin(margin)


def _share(model: AnalysedModel, blocks: list[TransformerBlock]) -> dict[str, Any]:
    image = torch.zeros(model.trained.in_channels, *model.patch_size, device=model.device)
    return transformer_share(model.network, blocks, image)


def attention(
    model: str | Path,
    *,
    images: str | Path,
    output: str | Path,
    fold: int | str = 0,
    labels: str | Path | None = None,
    slice_index: int | None = None,
    queries: Sequence[tuple[float, float]] = (),
    scores: Literal["softmax", "raw"] = "softmax",
    heads: Literal["mean", "each"] = "mean",
    knock_out: bool = False,
    margin: float = 0.01,
    mirroring: bool = False,
    patient_pattern: str | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    trust_checkpoint: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Draw and measure the attention of a trained model of this package in one slice of each case.

    Of several cases those without a structure are left out, and named under ``skipped``.
    Writes attention.html, attention.json and attention.csv into ``output`` and pictures into a folder for each case;
    with ``knock_out`` also knock_out.json, .csv and .png.

    Args:
        model: a trained-model folder.
        images: a folder of cases in nnU-Net's naming, or one file of a case.
        fold: whose network is looked at.
        labels: folder of true labels, from which slice and queries are chosen; otherwise from the prediction.
        slice_index: of the image file, counted from 0; by default where the structures' area is largest.
        queries: places (row, column) in voxels of the slice; by default one token in each structure.
        scores: draw the attention's weights, or its scores before the softmax.
        heads: draw their mean, or each head as well.
        knock_out: measure Dice and HD95 with each block knocked out: on the cases of ``images`` where ``labels`` are
            given, else on the fold's validation cases. What is done in ``output`` is not done again.
        margin: by how much Dice (a fraction) may fall for blocks to be dispensable.
        mirroring: average over mirrored copies in the knock-out, as nnU-Net's validation does.
        patient_pattern: regular expression whose first group is a case's patient, for the intervals.
        checkpoint: name of the file in the fold's folder.
        device: "cpu" or "cuda".
        trust_checkpoint: load a model that may run code.
        progress: show progress bars.

    Returns:
        What was written as attention.json, and under ``knock_out`` what was written as knock_out.json.

    Raises:
        UserError: a model without attention, no readable model or case, one of another dataset, or a wrong place.
    """
    output, images = Path(output), Path(images)
    label_folder = None if labels is None else Path(labels)
    analysed = load_analysed_model(
        model, fold=fold, checkpoint=checkpoint, device=device, trust_checkpoint=trust_checkpoint
    )
    blocks = require_blocks(analysed.network, analysed.trained.trainer_name)
    cases = find_analysed_cases(analysed, images)
    _check(output, label_folder, cases, slice_index=slice_index, queries=queries, margin=margin)
    if label_folder is not None:
        check_labels(analysed, cases, label_folder)
    knocked: tuple[list[Case], Path] | None = None
    if knock_out:
        knocked = validation_cases(analysed) if label_folder is None else (cases, label_folder)
    untrained = analysed.untrained_network()
    result: dict[str, Any] = {
        "kind": "attention",
        "version": nnunetv2_levit.__version__,
        "model": str(model),
        "trainer": analysed.trained.trainer_name,
        "configuration": analysed.trained.configuration_name,
        "fold": fold,
        "checkpoint": checkpoint,
        "patch_size": list(analysed.patch_size),
        "spacing_mm": list(analysed.spacing),
        "definitions": DEFINITIONS,
        "share": _share(analysed, blocks),
        "cases": [],
        "skipped": [],
    }
    pictures: dict[str, list[Picture]] = {}
    patches = chosen_patches(
        analysed, cases, labels=label_folder, slice_index=slice_index, places=queries, asks_places=True
    )
    untrained_blocks = require_blocks(untrained, analysed.trained.trainer_name)
    for patch in tqdm(patches, total=len(cases), desc="attention", unit="case", disable=not progress):
        analysis = analyse_patch(
            analysed, untrained, blocks, untrained_blocks, patch, raw=scores == "raw", each_head=heads == "each"
        )
        result["cases"].append(case_numbers(analysis))
        pictures[patch.case] = write_pictures(analysis, analysed, output / patch.case, raw=scores == "raw")
    result["skipped"] = [case.name for case in cases if case.name not in pictures]
    write_attention_report(result, pictures, output, knock_out=[])
    if knocked is None:
        return result
    study = knock_out_study(
        analysed,
        blocks,
        cases=knocked[0],
        labels=knocked[1],
        output=output,
        margin=margin,
        mirroring=mirroring,
        patient_pattern=patient_pattern,
        progress=progress,
    )
    write_attention_report(result, pictures, output, knock_out=write_knock_out(study, output))
    return {**result, "knock_out": study}


def as_text(result: dict[str, Any], output: Path) -> str:
    """What a person is told at the end."""
    share = result["share"]
    outside = [100 * share[what]["share_outside_the_transformer"] for what in ("parameters", "multiply_adds")]
    lines = [
        f"{result['trainer']}: {outside[0]:.1f} % of the parameters and {outside[1]:.1f} % of the multiply-adds lie "
        "outside the transformer blocks"
    ]
    if result["skipped"]:
        lines.append(f"{SKIPPED}: {', '.join(result['skipped'])}")
    if study := result.get("knock_out"):
        lines += [study["sentence"], study["without_attention"]]
        if study["command"]:
            lines.append(f"  {study['command']}")
    lines.append(f"read {output / 'attention.html'}")
    return "\n".join(lines)
