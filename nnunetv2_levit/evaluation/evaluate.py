"""Evaluation of predicted labels: every metric, case by case and summarised, as one JSON-able dictionary."""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import DEFINITIONS, EMPTY_RULES, structure_metrics
from nnunetv2_levit.evaluation.label_files import (
    LabelPair,
    Pair,
    label_files,
    pair_folders,
    pair_model_folder,
    patients_of,
    read_pair,
)
from nnunetv2_levit.evaluation.protocols import PROTOCOLS, Protocol
from nnunetv2_levit.evaluation.statistics import LEVEL, RESAMPLES
from nnunetv2_levit.evaluation.stored import write_evaluation
from nnunetv2_levit.evaluation.summaries import protocol_summary, summaries
from nnunetv2_levit.files import check_writable
from nnunetv2_levit.image_files import read_probabilities
from nnunetv2_levit.nnunet.dataset_description import dataset_description, reader_of, structures_of

# starting a process costs as much as evaluating some tens of small cases
CASES_WORTH_A_PROCESS = 48


def _probabilities(pair: Pair, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities (classes, *shape) that nnU-Net saved beside a case's prediction.

    Raises:
        UserError: there are none, the file is damaged, or they are of another shape than the labels.
    """
    path = pair.prediction.with_name(f"{pair.case}.npz")
    if not path.is_file():
        raise UserError(f"{pair.prediction} has no probabilities beside it: predict with --save_probabilities")
    values = read_probabilities(path)
    if values.shape[1:] not in (shape, (1, *shape)):
        raise UserError(f"{path} is of shape {values.shape[1:]} and its labels of {shape}: predict again")
    return values.reshape(values.shape[0], *shape)


def _protocol_values(
    pair: Pair,
    labels: LabelPair,
    *,
    masks: dict[str, tuple[np.ndarray, np.ndarray]],
    protocol: Protocol,
    channels: dict[str, int],
) -> dict[str, dict[str, float]]:
    probabilities = None
    if protocol.needs_probabilities or (protocol.name == "polyp" and any(pair.prediction.parent.glob("*.npz"))):
        probabilities = _probabilities(pair, labels.truth.shape)
        if probabilities.shape[0] <= max(channels.values()):
            raise UserError(f"the probabilities of {pair.prediction} have {probabilities.shape[0]} classes, too few")
    if protocol.name in ("isic", "polyp", "unet2022-em") and labels.truth.ndim != 2:
        raise UserError(f"the protocol {protocol.name} is for single images, and {pair.truth} is a volume")
    if protocol.name in ("transunet", "levit-unet") and labels.truth.ndim != 3:
        raise UserError(f"the protocol {protocol.name} is for volumes, and {pair.truth} is a single slice")
    if probabilities is not None and labels.outside is not None:
        probabilities[:, labels.outside] = 0  # as the labels there, which are background in both
    values = {}
    for name, (predicted, truth) in masks.items():
        probability = None if probabilities is None else probabilities[channels[name]]
        values[name] = protocol.measure(predicted, truth, probability)
    return values


def evaluate_case(
    pair: Pair,
    *,
    reader: type,
    structures: dict[str, tuple[int, ...]],
    ignored: int | None,
    tolerance: float,
    protocol: str | None,
    regions: bool,
) -> dict[str, Any]:
    """Metrics of every structure of one case, as the entry of the result's ``cases`` (without the patient)."""
    labels = read_pair(pair, reader(), structures=structures, ignored=ignored)
    masks = {
        name: (np.isin(labels.prediction, values), np.isin(labels.truth, values)) for name, values in structures.items()
    }
    entry: dict[str, Any] = {
        "case": pair.case,
        "fold": pair.fold,
        "shape": list(labels.truth.shape),
        "spacing": list(labels.spacing),
        "unit": labels.unit,
        "presence": {},
        "metrics": {},
    }
    for name, (predicted, truth) in masks.items():
        result = structure_metrics(predicted, truth, spacing=labels.spacing, tolerance=tolerance, unit=labels.unit)
        entry["presence"][name] = result.presence
        entry["metrics"][name] = result.values
    if protocol is not None:
        if regions:  # nnU-Net's channels: one a region without a background, or the labels themselves
            channels = {name: index for index, name in enumerate(structures)}
        else:
            channels = {name: values[0] for name, values in structures.items()}
        entry["protocol"] = _protocol_values(pair, labels, masks=masks, protocol=PROTOCOLS[protocol], channels=channels)
    return entry


def evaluate(
    *,
    predictions: str | Path | None = None,
    truth: str | Path | None = None,
    model: str | Path | None = None,
    folds: Sequence[int | str] | None = None,
    dataset: str | Path | None = None,
    name: str | None = None,
    tolerance: float = 2.0,
    protocol: str | None = None,
    partial: bool = False,
    patient_pattern: str | None = None,
    workers: int = 1,
    output: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a folder of predictions with its ground truth, or the validations of a trained-model folder.

    Args:
        predictions: folder of predicted labels; needs ``truth``.
        truth: folder of true labels; with ``model`` it is found by itself.
        model: trained-model folder, whose folds' validations are pooled.
        folds: of ``model`` (default: all that were validated).
        dataset: folder with the dataset.json that names the structures, where it is not beside the labels.
        name: the model's name in tables (default: the folder's).
        tolerance: of NSD, in mm (pixels for pictures).
        protocol: name of a paper's protocol to compute beside our metrics.
        partial: evaluate the predicted cases only although more have ground truth.
        patient_pattern: regular expression whose first group is a case's patient.
        workers: processes for many cases. More than one needs a script's calls below ``if __name__ == "__main__":``.
        output: folder to write the result to, as JSON, Markdown and CSV.
        progress: show a progress bar.

    Returns:
        A dictionary of plain values: ``cases`` with all ``metrics``, ``summary`` by structure and metric, ``mean``.

    Raises:
        UserError: missing, extra, unreadable or misaligned files, unknown structures or protocol.
    """
    predictions, truth, model, dataset, output = (
        None if path is None else Path(path) for path in (predictions, truth, model, dataset, output)
    )
    if output is not None:
        check_writable(output, folder=True)
    if protocol is not None and protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if not 0 <= tolerance < math.inf:
        raise UserError(f"the tolerance must be a number from 0, not {tolerance}: 2 is the default")
    if workers < 1:
        raise UserError(f"{workers} processes can't evaluate anything: give -w 1 or more")
    if model is not None and predictions is not None:
        raise UserError("-m takes its folds' validations and -p a folder of predictions: give one of them")
    if model is not None:
        pairs, fold_names = pair_model_folder(model, truth, None if folds is None else [str(fold) for fold in folds])
        description, _ = dataset_description([model])
        name, place = name or model.name, model
        split = f"validation of {', '.join(fold_names)}, pooled"
    elif predictions is not None and truth is not None:
        pairs = pair_folders(predictions, truth, partial=partial)
        candidates = [dataset, predictions, truth.parent]
        description, _ = dataset_description([folder for folder in candidates if folder is not None])
        name, place = name or predictions.resolve().name, predictions
        split = "the cases of the ground-truth folder"
        if partial:
            split = f"{len(pairs)} of the {len(label_files(truth))} cases with ground truth (--partial)"
    else:
        raise UserError("give predictions and ground truth (-p and -g), or a trained-model folder (-m)")
    structures, ignored = structures_of(description)
    ending = pairs[0].truth.name.removeprefix(pairs[0].case)
    arguments = dict(
        reader=reader_of(description | {"file_ending": ending}),
        structures=structures,
        ignored=ignored,
        tolerance=tolerance,
        protocol=protocol,
        regions=any(len(values) > 1 for values in structures.values()),
    )
    cases = _run(pairs, arguments, workers, progress=progress)
    summary_folder = dataset or pairs[0].truth.parent.parent
    patients = patients_of([pair.case for pair in pairs], summary_folder, patient_pattern)
    for entry in cases:
        entry["patient"] = patients[entry["case"]]
    dimensions = max(len(entry["shape"]) for entry in cases)
    for entry in cases:
        if len(entry["shape"]) < dimensions:  # an area among volumes
            for values in entry["metrics"].values():
                values["volume_difference"] = None
    units = {entry["unit"] for entry in cases}
    if len(units) > 1:
        raise UserError(f"{place} mixes pictures without a pixel size and images in mm: evaluate them apart")
    result = {
        "kind": "evaluation",
        "made_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
        "name": name,
        "predictions": str(place),
        "ground_truth": str(pairs[0].truth.parent),
        "file_ending": ending,
        "dataset": description.get("name", ""),
        "split": split,
        "unit": units.pop(),
        "dimensions": dimensions,
        "tolerance": tolerance,
        "structures": {structure: list(values) for structure, values in structures.items()},
        "ignore_label": ignored,
        "definitions": DEFINITIONS,
        "empty_rules": EMPTY_RULES,
        "interval": f"{LEVEL:.0f} % percentile bootstrap, {RESAMPLES} resamples of patients with all their cases",
        "patients": len(set(patients.values())),
        "cases": cases,
    }
    if protocol is not None:
        result["protocol"] = protocol_summary(PROTOCOLS[protocol], cases, list(structures))
    result |= summaries(cases, list(structures))
    if output is not None:
        write_evaluation(result, output)
    return result


def _run(pairs: Sequence[Pair], arguments: dict[str, Any], workers: int, *, progress: bool) -> list[dict[str, Any]]:
    """The cases in order, in several processes where there are enough of them."""
    workers = min(workers, len(pairs) // CASES_WORTH_A_PROCESS + 1)
    with tqdm(total=len(pairs), desc="evaluating", disable=not progress) as bar:
        if workers < 2:
            cases = []
            for pair in pairs:
                cases.append(evaluate_case(pair, **arguments))
                bar.update()
            return cases
        # spawned: forking a process that has threads of ITK or OpenMP can hang
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(evaluate_case, pair, **arguments): pair.case for pair in pairs}
            done = {}
            try:
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [done[pair.case] for pair in pairs]
