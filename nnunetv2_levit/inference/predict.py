"""Predicting a folder of images: `predict` of the public API."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.predict_folder import Settings, predict_folder
from nnunetv2_levit.nnunet.model_folder import trained_model_folder


def _model_folder(
    model: str | Path | None, dataset: int | str | None, trainer: str, plans: str, configuration: str | None
) -> Path:
    if model is not None:
        if dataset is not None or configuration is not None:
            raise UserError("-m names the model folder by itself: leave out -d and -c, or -m")
        return Path(model)
    if dataset is None or configuration is None:
        raise UserError("predict needs a model: -d and -c (and -tr, -p) in nnUNet_results, or its folder with -m")
    return trained_model_folder(dataset=str(dataset), trainer=trainer, plans=plans, configuration=configuration)


def predict(
    *,
    model: str | Path | None = None,
    dataset: int | str | None = None,
    trainer: str = "nnUNetTrainer",
    plans: str = "nnUNetPlans",
    configuration: str | None = None,
    images: str | Path,
    output: str | Path,
    folds: Sequence[int | str] = (0, 1, 2, 3, 4),
    checkpoint: str = "checkpoint_final.pth",
    step_size: float = 0.5,
    mirroring: bool = True,
    save_probabilities: bool = False,
    continue_prediction: bool = False,
    preprocessing_workers: int = 3,
    exporting_workers: int = 3,
    previous_stage: str | Path | None = None,
    parts: int = 1,
    part: int = 0,
    device: Literal["cuda", "cpu", "mps"] = "cuda",
    results_on_device: bool = True,
    fp32_sums: bool = False,
    backend: Literal["torch", "onnx"] = "torch",
    trust_checkpoint: bool = False,
    progress: bool = False,
    verbose: bool = False,
) -> list[Path]:
    """Segment every case of a folder of images, as ``nnUNetv2_predict`` does, batched for 2D configurations.

    Args:
        model: a trained-model folder; or ``dataset`` (id or name) and ``configuration``, with ``trainer`` and
            ``plans``, in nnU-Net's results.
        images: folder of images, named CASE_0000.nii.gz and so on.
        output: folder to write to, made if needed.
        folds: whose networks are averaged: numbers, or "all".
        checkpoint: name of the file in each fold's folder.
        step_size: of the sliding window, as a share of the patch.
        mirroring: average over mirrored copies as well.
        save_probabilities: also write the probabilities as .npz.
        continue_prediction: predict only what is missing in ``output``.
        preprocessing_workers, exporting_workers: processes.
        previous_stage: predictions of the first stage of a cascade.
        parts, part: divide the cases into ``parts`` calls; this is number ``part``, counted from 0.
        results_on_device: keep logits in the device's memory.
        fp32_sums: add windows and folds in fp32 where nnU-Net does it in fp16.
        backend: "onnx" computes 2D configurations by ONNX Runtime, on the CPU.
        trust_checkpoint: load a model that may run code.
        progress: show a progress bar, and what nnU-Net says of its work.
        verbose: say what is done with each case.

    Returns:
        The segmentations of all cases asked for, one file each, whether written now or before.

    Raises:
        UserError: something is missing or unusable; nothing was computed.
        FailedCasesError: some cases could not be read, predicted or written (``reasons`` says which and why); all
            others are done.
    """
    settings = Settings(
        folds=folds,
        checkpoint=checkpoint,
        step_size=step_size,
        mirroring=mirroring,
        save_probabilities=save_probabilities,
        continue_prediction=continue_prediction,
        preprocessing_workers=preprocessing_workers,
        exporting_workers=exporting_workers,
        previous_stage=None if previous_stage is None else Path(previous_stage),
        parts=parts,
        part=part,
        device=device,
        results_on_device=results_on_device,
        progress_bar=progress,
        verbose=verbose,
        accumulator=torch.float32 if fp32_sums else torch.half,
        backend=backend,
        trust_checkpoint=trust_checkpoint,
    )
    folder = _model_folder(model, dataset, trainer, plans, configuration)
    with contextlib.ExitStack() as stack:
        if not progress and not verbose:  # nnU-Net's own code, which predicts what is not batched, prints
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        return predict_folder(model=folder, source=Path(images), output=Path(output), settings=settings)
