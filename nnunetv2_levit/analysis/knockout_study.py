"""Which blocks a trained model needs: Dice and HD95 with each knock-out, case by case, resumable.

A case is computed slice by slice. The network without a knock-out comes first, and what a knock-out leaves untouched is
taken from it (`knockout.ReusedParts`), so that a knock-out of the last block costs little more than the decoder.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from torch import Tensor
from tqdm import tqdm

from nnunetv2_levit import schemas
from nnunetv2_levit.analysis.analysed_model import IMAGES_AT_ONCE, AnalysedModel
from nnunetv2_levit.analysis.dispensable_blocks import conclusion, without_attention
from nnunetv2_levit.analysis.knockout import KnockOut, ReusedParts, knock_outs, knocked_out, reusable_parts
from nnunetv2_levit.analysis.transformer_blocks import TransformerBlock, stages
from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import structure_metrics
from nnunetv2_levit.evaluation.label_files import as_measured, ground_truth_of, patients_of, splits_of
from nnunetv2_levit.evaluation.statistics import bootstrap_interval
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.image_files import differing_geometry, read_images, read_label_file
from nnunetv2_levit.inference.case_files import Case, cases_for
from nnunetv2_levit.nnunet.dataset_description import allowed_labels
from nnunetv2_levit.nnunet.environment import nnunet_folder

BASELINE = "baseline"
METRICS = ("dice", "hd95")
LOGITS_BYTES = 2**30  # of knock-outs whose volumes are filled at the same time
TOLERANCE = 2.0  # of the surface Dice, which is computed along and not used
FOLDER = "knock_out"


def validation_cases(model: AnalysedModel) -> tuple[list[Case], Path]:
    """The validation cases of the model's fold in nnU-Net's raw dataset, and the folder of their labels.

    Raises:
        UserError: nnU-Net's folders, the folds or the images are not here.
    """
    advice = "give a folder of images with -i and their labels with --labels"
    dataset = model.trained.plans.dataset_name
    if model.fold == "all":
        raise UserError(f"fold all was trained on its validation cases: {advice}, of other patients")
    splits = splits_of(dataset)
    if splits is None or not isinstance(model.fold, int) or model.fold >= len(splits):
        raise UserError(f"nnUNet_preprocessed has no fold {model.fold} of {dataset} (splits_final.json): {advice}")
    wanted = set(splits[model.fold]["val"])
    images = nnunet_folder("nnUNet_raw") / dataset / "imagesTr"
    reader = model.trained.plans.image_reader_writer_class
    cases = [case for case in cases_for(reader, model.trained.dataset, images, images) if case.name in wanted]
    missing = sorted(wanted - {case.name for case in cases})
    if missing:
        raise UserError(f"{images} lacks {len(missing)} validation cases, such as {missing[0]}: {advice}")
    return cases, ground_truth_of(dataset)


def _volume_logits(
    model: AnalysedModel,
    parts: ReusedParts,
    volume: np.ndarray,
    chosen: Sequence[KnockOut],
    *,
    mirroring: bool,
    advance: Any,
) -> list[Tensor]:
    """Logits (K, D, H, W) of a preprocessed volume (C, D, H, W): of the whole network, then with each knock-out."""
    heads, slices = model.trained.labels.num_segmentation_heads, volume.shape[1]
    window = model.window(mirroring=mirroring)
    results = [torch.empty((heads, *volume.shape[1:])) for _ in range(len(chosen) + 1)]
    for first in range(0, slices, IMAGES_AT_ONCE):
        some = torch.from_numpy(volume[:, first : first + IMAGES_AT_ONCE])
        parts.start()
        for number, item in enumerate([None, *chosen]):
            batches = count()

            def compute(images: Tensor, batches: Any = batches) -> Tensor:
                parts.batch = next(batches)
                return model.compute(images)

            parts.keeping = item is None
            with ExitStack() as stack:
                stack.enter_context(parts.used(() if item is None else item.blocks))
                if item is not None:
                    stack.enter_context(knocked_out(item))
                results[number][:, first : first + some.shape[1]] = window.logits(compute, some)
            advance(some.shape[1] / slices)
    return results


def _segmentation(model: AnalysedModel, logits: Tensor, properties: dict[str, Any]) -> np.ndarray:
    """Labels (D, H, W) on the image file's grid, as nnU-Net exports them."""
    trained = model.trained
    labels = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        trained.plans,
        trained.configuration,
        trained.labels,
        properties,
        num_threads_torch=torch.get_num_threads(),
    )
    return np.asarray(labels)


def _metrics(
    model: AnalysedModel, predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float], *, file: Path
) -> dict[str, Any]:
    """DSC and HD95 of every structure."""
    if model.ignored is not None:
        predicted = np.where(truth == model.ignored, 0, predicted)
        truth = np.where(truth == model.ignored, 0, truth)
    (predicted, truth), sizes, unit = as_measured([predicted, truth], spacing, file=file)
    found = {}
    for name, values in model.structures.items():
        masks = np.isin(predicted, values), np.isin(truth, values)
        measured = structure_metrics(*masks, spacing=sizes, tolerance=TOLERANCE, unit=unit).values
        found[name] = {metric: measured[metric] for metric in METRICS}
    return found


def check_margin(margin: float) -> None:
    """Raise a UserError unless the margin is a fraction."""
    if not 0 <= margin <= 1:
        raise UserError(f"the margin {margin:g} is no fraction of Dice: give 0 to 1, such as 0.01")


def check_labels(model: AnalysedModel, cases: Sequence[Case], labels: Path) -> None:
    """Raise a UserError where a case has no label file."""
    files = [_label_file(model, case, labels) for case in cases]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{labels} lacks the labels of {len(missing)} cases, such as {missing[0]}")


def _label_file(model: AnalysedModel, case: Case, labels: Path) -> Path:
    return labels / f"{case.name}{model.trained.dataset['file_ending']}"


def _case_results(
    model: AnalysedModel, case: Case, labels: Path, items: Sequence[KnockOut], *, mirroring: bool, advance: Any,
    parts: ReusedParts,
) -> dict[str, Any]:  # fmt: skip
    """Metrics of one case for the whole network and every knock-out, by key."""
    trained = model.trained
    reader = trained.plans.image_reader_writer_class()
    image, found = read_images(case.channels, reader)
    case.check_channels(len(image), trained.in_channels)
    path = _label_file(model, case, labels)
    truth, theirs = read_label_file(path, reader, allowed=allowed_labels(trained.dataset))
    different = differing_geometry((image.shape[1:], found), (truth.shape, theirs))
    if different is not None:
        raise UserError(f"{path} is not aligned with {case.channels[0]}: they differ in {different[0]}")
    volume, properties = model.preparation.preprocess(case)
    size = 4 * trained.labels.num_segmentation_heads * int(np.prod(volume.shape[1:]))
    at_once = max(1, LOGITS_BYTES // size)
    results: dict[str, Any] = {}
    for first in range(0, len(items), at_once):
        group = items[first : first + at_once]
        logits = _volume_logits(model, parts, volume, group, mirroring=mirroring, advance=advance)
        for key, values in zip([BASELINE, *(item.key for item in group)], logits, strict=True):
            if key not in results:
                predicted = _segmentation(model, values, properties)
                results[key] = _metrics(model, predicted, truth, theirs["spacing"], file=path)
    return {"results": results, "unit": as_measured([truth], theirs["spacing"], file=path)[2]}


def _difference(rows: Sequence[dict[str, Any]], key: str, metric: str, patients: Sequence[str]) -> dict[str, Any]:
    """Mean over structures of the mean change over cases, and its interval; a structure without value is left out."""
    structures = list(rows[0]["results"][BASELINE])

    def value(row: dict[str, Any], which: str, structure: str) -> float:
        found = row["results"][which][structure][metric]
        return np.nan if found is None else found

    table = np.array(
        [[value(row, key, s) - (0 if key == BASELINE else value(row, BASELINE, s)) for s in structures] for row in rows]
    )
    defined = ~np.isnan(table)
    means = {
        s: float(table[defined[:, i], i].mean()) if defined[:, i].any() else None for i, s in enumerate(structures)
    }
    known = [mean for mean in means.values() if mean is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "ci95": bootstrap_interval(table[:, defined.any(axis=0)], patients) if known else None,
        "structures": means,
        "pairs": int(defined.sum()),
    }


class _Progress:
    """A bar in runs of the network over a case; it counts parts of them."""

    def __init__(self, total: int, *, show: bool) -> None:
        self._bar = tqdm(total=total, desc="knock-out", unit="run", disable=not show)
        self._done = 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, runs: float) -> None:
        """So many more runs, or parts of one, are done."""
        self._done += runs
        self._bar.update(int(self._done + 1e-6) - self._bar.n)


def _versions(files: Sequence[Path]) -> list[list[str | int]]:
    """Which files, and as they were last written: path, bytes and time."""
    return [[str(file.resolve()), (found := file.stat()).st_size, found.st_mtime_ns] for file in files]


def _stored(file: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """The results of a case that was done before with the same model and settings, else None."""
    if not file.is_file():
        return None
    row: dict[str, Any] = read_json(file, what="a case of a knock-out study", schema=schemas.KNOCK_OUT_CASE)
    return row if row["made_with"] == made_with else None


def knock_out_study(
    model: AnalysedModel,
    blocks: list[TransformerBlock],
    *,
    cases: Sequence[Case],
    labels: Path,
    output: Path,
    margin: float = 0.01,
    mirroring: bool = False,
    patient_pattern: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure every knock-out on labelled cases; what is done lies in ``output``/knock_out and is not done again.

    Args:
        margin: of Dice (a fraction), by how much it may fall for blocks to be dispensable.
        mirroring: average over mirrored copies, as nnU-Net's validation does; four times the work.

    Raises:
        UserError: a case has no or foreign labels.
    """
    check_labels(model, cases, labels)
    items = knock_outs(blocks)
    made_with = {
        "checkpoint": model.checkpoint_digest,
        "knock_outs": [item.key for item in items],
        "mirroring": mirroring,
    }
    versions = [{**made_with, "files": _versions([*case.channels, _label_file(model, case, labels)])} for case in cases]
    parts = ReusedParts(reusable_parts(model.network, blocks))
    rows = [
        _stored(output / FOLDER / f"{case.name}.json", version) for case, version in zip(cases, versions, strict=True)
    ]
    pending = sum(row is None for row in rows)
    with _Progress(pending * (len(items) + 1), show=progress) as bar:
        for number, (case, row) in enumerate(zip(cases, rows, strict=True)):
            if row is None:
                row = _case_results(model, case, labels, items, mirroring=mirroring, advance=bar.advance, parts=parts)
                row = {"case": case.name, "made_with": versions[number], **row}
                parts.start()
                write_json(output / FOLDER / f"{case.name}.json", row)
                rows[number] = row
    done = [row for row in rows if row is not None]
    return _summary(
        model, blocks, items, done, labels=labels, margin=margin, mirroring=mirroring, pattern=patient_pattern
    )


def _summary(
    model: AnalysedModel, blocks: list[TransformerBlock], items: Sequence[KnockOut], rows: Sequence[dict[str, Any]], *,
    labels: Path, margin: float, mirroring: bool, pattern: str | None,
) -> dict[str, Any]:  # fmt: skip
    names = [row["case"] for row in rows]
    known = patients_of(names, labels.parent, pattern)
    patients = [known[name] for name in names]
    several = len(stages(blocks)) > 1
    adapted = isinstance(model.trained.network, AdaptedNetwork)  # which truncate does not shorten
    folder = str(model.trained.path)
    results = [
        {
            "key": item.key,
            "title": item.title,
            "what": item.what,
            "series": item.series,
            "kept": item.kept,
            "blocks": [block.name for block in item.blocks],
            **{metric: _difference(rows, item.key, metric, patients) for metric in METRICS},
        }
        for item in items
    ]
    return {
        "trainer": model.trained.trainer_name,
        "model": folder,
        "fold": model.fold,
        "cases": len(rows),
        "patients": len(set(patients)),
        "unit": rows[0]["unit"],
        "mirroring": mirroring,
        "margin": margin,
        "several_stages": several,
        "baseline": {metric: _difference(rows, BASELINE, metric, patients) for metric in METRICS},
        "knock_outs": results,
        "without_attention": without_attention(results),
        **conclusion(
            results,
            margin=margin,
            several_stages=several,
            model=None if adapted else folder,
            checkpoint=model.trained.checkpoint,
        ),
        "needs_fine_tuning": getattr(model.network, "truncated", True) is False,
    }
