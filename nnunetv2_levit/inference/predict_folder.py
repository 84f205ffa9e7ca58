"""Predicting a folder of images, as ``nnunetv2_levit predict`` does."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import check_output_folder
from nnunetv2_levit.image_files import check_image_file
from nnunetv2_levit.inference.case_files import Case, cases_for
from nnunetv2_levit.inference.onnx_backend import require_onnx
from nnunetv2_levit.inference.predictor import BatchedPredictor
from nnunetv2_levit.nnunet.model_folder import ModelFolder, check_model_folder


@dataclass(frozen=True)
class Settings:
    """The flags of ``nnUNetv2_predict`` beside the folders; same names where nnU-Net's say what they mean."""

    folds: Sequence[int | str] = (0, 1, 2, 3, 4)
    checkpoint: str = "checkpoint_final.pth"
    step_size: float = 0.5
    mirroring: bool = True
    save_probabilities: bool = False
    continue_prediction: bool = False
    preprocessing_workers: int = 3
    exporting_workers: int = 3
    previous_stage: Path | None = None
    parts: int = 1
    part: int = 0
    device: str = "cuda"
    results_on_device: bool = True
    progress_bar: bool = True
    verbose: bool = False
    accumulator: torch.dtype = torch.half
    backend: str = "torch"
    trust_checkpoint: bool = False


def _check(settings: Settings) -> None:
    if not 0 < settings.step_size <= 1:
        raise UserError(f"the step size {settings.step_size} is outside 0 to 1: nnU-Net's default is 0.5")
    if settings.parts < 1 or not 0 <= settings.part < settings.parts:
        raise UserError(f"part {settings.part} of {settings.parts} does not exist: parts are counted from 0")
    if settings.preprocessing_workers < 0 or settings.exporting_workers < 0:
        raise UserError("the numbers of processes, -npp and -nps, can't be negative")
    if settings.backend == "onnx":
        if settings.device != "cpu":
            raise UserError(f"ONNX Runtime predicts on the CPU here, not on {settings.device}: add -device cpu")
        require_onnx()
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device here: use -device cpu")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise UserError("torch finds no MPS device here: use -device cpu")


def _check_workers(settings: Settings) -> None:
    """Raise a UserError for numbers of workers with which nnU-Net's own code can't begin."""
    if (settings.preprocessing_workers == 0) != (settings.exporting_workers == 0):
        raise UserError(
            "nnU-Net predicts this model itself, with workers for both reading and exporting or for neither: give both "
            "-npp 0 and -nps 0, or 1 and more for each"
        )


def _check_files(cases: Sequence[Case], *, file_ending: str, settings: Settings) -> None:
    """Check what nnU-Net's own code, which predicts what is not batched, takes as it is.

    Raises:
        UserError: an image that is not whole, or a segmentation that counts as done and is not.
    """
    for case in cases:
        for path in case.channels:
            check_image_file(path)
        done = Path(f"{case.target}{file_ending}")
        if settings.continue_prediction and done.exists():
            probabilities = settings.save_probabilities and done.with_name(f"{case.name}.npz").exists()
            if not case.is_complete(file_ending, probabilities=probabilities):
                raise UserError(f"{done} or its .npz is truncated or damaged: remove both, so that they are made anew")


@contextmanager
def _threads_for(device: str) -> Iterator[None]:
    """torch's number of threads for a prediction; afterwards it, and cuDNN's autotuning, are the caller's again."""
    threads, autotuning = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if device == "cuda":
        torch.set_num_threads(1)  # as nnU-Net does: the other cores are for the workers
    elif device == "cpu":
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(usable or 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = autotuning


def _check_output(source: Path, output: Path) -> None:
    """Raise a UserError where the output is no folder of its own; makes nothing yet."""
    if output.is_dir() and output.samefile(source):
        raise UserError(f"the input and the output are the same folder {output}: give another with -o")
    check_output_folder(output)


def _make_output(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {output} can't be made ({error.strerror}): give another with -o") from None
    if not os.access(output, os.W_OK | os.X_OK):
        raise UserError(f"the output folder {output} can't be written: mend its permissions or give another with -o")


def _check_previous_stage(needed: str | None, given: Path | None) -> None:
    """Raise a UserError unless a cascade's second stage, and nothing else, got a folder of the first's predictions."""
    if needed is not None and given is None:
        raise UserError(
            f"this configuration needs the predictions of {needed}: give their folder with -prev_stage_predictions"
        )
    if needed is None and given is not None:
        raise UserError(
            "-prev_stage_predictions is for the second stage of a cascade, and this model is none: leave it out"
        )
    if given is not None and not given.is_dir():
        raise UserError(f"there is no folder {given} of predictions of {needed} (-prev_stage_predictions)")


def predict_folder(*, model: Path, source: Path, output: Path, settings: Settings) -> list[Path]:
    """Segment every case of ``source`` into ``output``; returns the segmentations, those written before included.

    Raises:
        UserError: something is missing or unusable; nothing was computed.
        FailedCasesError: some cases could not be read, predicted or written; all others are done.
    """
    _check(settings)
    folder = check_model_folder(model, settings.folds, settings.checkpoint, trust_checkpoint=settings.trust_checkpoint)
    cases = cases_for(folder.reader, folder.dataset, source, output)
    _check_output(source, output)
    with _threads_for(settings.device):
        return _predict(folder, cases, model=model, source=source, output=output, settings=settings)


def _predict(
    folder: ModelFolder, cases: Sequence[Case], *, model: Path, source: Path, output: Path, settings: Settings
) -> list[Path]:
    predictor = BatchedPredictor(
        tile_step_size=settings.step_size,
        use_gaussian=True,
        use_mirroring=settings.mirroring,
        perform_everything_on_device=settings.results_on_device,
        device=torch.device(settings.device),
        verbose=settings.verbose,
        verbose_preprocessing=settings.verbose,
        allow_tqdm=settings.progress_bar,
        accumulator=settings.accumulator,
        backend=settings.backend,
        trust_checkpoint=settings.trust_checkpoint,
    )
    predictor.initialize_from_trained_model_folder(str(model), list(settings.folds), settings.checkpoint)
    _check_previous_stage(predictor.configuration_manager.previous_stage_name, settings.previous_stage)
    if not predictor.is_batched:
        _check_workers(settings)
        _check_files(cases, file_ending=folder.dataset["file_ending"], settings=settings)
    _make_output(output)
    ending = folder.dataset["file_ending"]
    chosen = cases[settings.part :: settings.parts]
    written = [Path(f"{case.target}{ending}") for case in chosen]
    previous_stage = None if settings.previous_stage is None else str(settings.previous_stage)
    if settings.preprocessing_workers == settings.exporting_workers == 0 and not predictor.is_batched:
        if chosen:
            predictor.predict_from_files_sequential(
                [[str(path) for path in case.channels] for case in chosen],
                [str(case.target) for case in chosen],
                settings.save_probabilities,
                not settings.continue_prediction,
                previous_stage,
            )
        return written
    predictor.predict_from_files(
        str(source),
        str(output),
        settings.save_probabilities,
        not settings.continue_prediction,
        num_processes_preprocessing=settings.preprocessing_workers,
        num_processes_segmentation_export=settings.exporting_workers,
        num_parts=settings.parts,
        part_id=settings.part,
        folder_with_segs_from_prev_stage=previous_stage,
    )
    return written
