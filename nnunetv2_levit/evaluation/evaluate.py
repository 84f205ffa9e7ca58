"""Evaluation of predicted labels: every metric, case by case and summarised, as one JSON-able dictionary."""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.case_metrics import DEFINITIONS, EMPTY_RULES, METRICS, structure_metrics
from nnunetv2_levit.evaluation.label_files import (
    Pair,
    label_files,
    pair_folders,
    pair_model_folder,
    patients_of,
    read_pair,
)
from nnunetv2_levit.evaluation.protocols import PROTOCOLS, Protocol
from nnunetv2_levit.evaluation.statistics import LEVEL, RESAMPLES, mean_of_structures, summarise
from nnunetv2_levit.files import read_json
from nnunetv2_levit.image_files import read_probabilities
from nnunetv2_levit.nnunet.dataset_description import dataset_description, reader_of, structures_of

# starting a process costs as much as evaluating some tens of small cases
CASES_WORTH_A_PROCESS = 48


@dataclass(frozen=True)
class Request:
    """What to evaluate: a folder of predictions with its ground truth, or a trained-model folder.

    Attributes:
        dataset: folder with the dataset.json that names the structures, if known.
        tolerance: of NSD, in mm (pixels for pictures).
        protocol: name of a paper's protocol to compute beside our metrics.
        partial: evaluate predicted cases only although more have ground truth.
        patient_pattern: regular expression whose first group is a case's patient.
        workers: processes.
    """

    predictions: Path | None = None
    truth: Path | None = None
    model: Path | None = None
    folds: tuple[str, ...] | None = None
    dataset: Path | None = None
    name: str | None = None
    tolerance: float = 2.0
    protocol: str | None = None
    partial: bool = False
    patient_pattern: str | None = None
    workers: int = 4


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
    pair: Pair, labels: Any, masks: dict[str, tuple], protocol: Protocol, channels: dict[str, int]
) -> dict[str, dict[str, float]]:
    probabilities = None
    if protocol.needs_probabilities or (protocol.name == "polyp" and any(pair.prediction.parent.glob("*.npz"))):
        probabilities = _probabilities(pair, labels.truth.shape)
        if probabilities.shape[0] <= max(channels.values()):
            raise UserError(f"the probabilities of {pair.prediction} have {probabilities.shape[0]} classes, too few")
    if protocol.name in ("isic", "polyp", "unet2022-em") and labels.truth.ndim != 2:
        raise UserError(f"the protocol {protocol.name} is for single images, and {pair.truth} is a volume")
    return {
        name: protocol.measure(*masks[name], None if probabilities is None else probabilities[channels[name]])
        for name in masks
    }


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
        # nnU-Net's channels: the labels themselves, or one a region without a background
        channels = {name: index if regions else structures[name][0] for index, name in enumerate(structures)}
        entry["protocol"] = _protocol_values(pair, labels, masks, PROTOCOLS[protocol], channels)
    return entry


def evaluate(request: Request) -> dict[str, Any]:
    """Evaluate all cases; returns the dictionary that `tables.write_evaluation` writes.

    Raises:
        UserError: missing, extra, unreadable or misaligned files, unknown structures or protocol.
    """
    if request.protocol is not None and request.protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {request.protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if not 0 <= request.tolerance < math.inf:
        raise UserError(f"the tolerance must be a number from 0, not {request.tolerance}: 2 is the default")
    if request.workers < 1:
        raise UserError(f"{request.workers} processes can't evaluate anything: give -w 1 or more")
    if request.model is not None:
        pairs, folds = pair_model_folder(request.model, request.truth, request.folds)
        description, _ = dataset_description([request.model])
        name, place = request.name or request.model.name, request.model
        split = f"validation of {', '.join(folds)}, pooled"
    elif request.predictions is not None and request.truth is not None:
        pairs = pair_folders(request.predictions, request.truth, partial=request.partial)
        candidates = [request.dataset, request.predictions, request.truth.parent]
        description, _ = dataset_description([folder for folder in candidates if folder is not None])
        name, place = request.name or request.predictions.resolve().name, request.predictions
        split = "the cases of the ground-truth folder"
        if request.partial:
            split = f"{len(pairs)} of the {len(label_files(request.truth))} cases with ground truth (--partial)"
    else:
        raise UserError("give predictions and ground truth (-p and -g), or a trained-model folder (-m)")
    structures, ignored = structures_of(description)
    ending = pairs[0].truth.name.removeprefix(pairs[0].case)
    arguments = dict(
        reader=reader_of(description | {"file_ending": ending}),
        structures=structures,
        ignored=ignored,
        tolerance=request.tolerance,
        protocol=request.protocol,
        regions=any(len(values) > 1 for values in structures.values()),
    )
    cases = _run(pairs, arguments, request.workers)
    summary_folder = request.dataset or pairs[0].truth.parent.parent
    patients = patients_of([pair.case for pair in pairs], summary_folder, request.patient_pattern)
    for entry in cases:
        entry["patient"] = patients[entry["case"]]
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
        "dimensions": len(cases[0]["shape"]),
        "tolerance": request.tolerance,
        "structures": {structure: list(values) for structure, values in structures.items()},
        "ignore_label": ignored,
        "definitions": DEFINITIONS,
        "empty_rules": EMPTY_RULES,
        "interval": f"{LEVEL:.0f} % percentile bootstrap, {RESAMPLES} resamples of patients with all their cases",
        "patients": len(set(patients.values())),
        "cases": cases,
    }
    if request.protocol is not None:
        result["protocol"] = protocol_summary(PROTOCOLS[request.protocol], cases, list(structures))
    return {**result, **summaries(cases, list(structures))}


def _run(pairs: Sequence[Pair], arguments: dict[str, Any], workers: int) -> list[dict[str, Any]]:
    """The cases in order, in several processes where there are enough of them."""
    workers = min(workers, len(pairs) // CASES_WORTH_A_PROCESS + 1)
    with tqdm(total=len(pairs), desc="evaluating") as progress:
        if workers < 2:
            cases = []
            for pair in pairs:
                cases.append(evaluate_case(pair, **arguments))
                progress.update()
            return cases
        # spawned: forking a process that has threads of ITK or OpenMP can hang
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(evaluate_case, pair, **arguments): pair.case for pair in pairs}
            done = {}
            try:
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    progress.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [done[pair.case] for pair in pairs]


def summaries(cases: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """Summary of each structure and metric, the mean over structures, and what was empty."""
    patients = [entry["patient"] for entry in cases]
    columns = {
        structure: {metric: [entry["metrics"][structure][metric] for entry in cases] for metric in METRICS}
        for structure in structures
    }
    return {
        "summary": {
            structure: {metric: summarise(values, patients) for metric, values in by_metric.items()}
            for structure, by_metric in columns.items()
        },
        "mean": {
            metric: mean_of_structures([columns[structure][metric] for structure in structures], patients)
            for metric in METRICS
        },
        "empty": {
            structure: {
                kind: [entry["case"] for entry in cases if entry["presence"][structure] == kind] for kind in EMPTY_RULES
            }
            for structure in structures
        },
    }


def protocol_summary(protocol: Protocol, cases: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """A protocol's own figures: of each structure the mean over cases, and the mean of these."""
    facts = {key: value for key, value in asdict(protocol).items() if key in ("name", "source", "statement", "columns")}
    per_structure = {
        structure: {
            column: float(np.mean([entry["protocol"][structure][column] for entry in cases]))
            for column in protocol.columns
        }
        for structure in structures
    }
    means = {
        column: float(np.mean([per_structure[structure][column] for structure in structures]))
        for column in protocol.columns
    }
    return {**facts, "percent": sorted(protocol.percent), "structures": per_structure, "mean": means}


def load_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation from its JSON file or the folder that `evaluate` wrote.

    Raises:
        UserError: there is none, or it is damaged; the sentence names file and place.
    """
    from nnunetv2_levit.evaluation.stored import check_consistent

    file = path / "evaluation.json" if path.is_dir() else path
    content = read_json(file, what="a result of `nnunetv2_levit evaluate`", schema=schemas.EVALUATION)
    check_consistent(content, file)
    return content
