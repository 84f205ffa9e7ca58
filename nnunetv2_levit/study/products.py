"""What is made of trained models: predictions of the test images, and evaluations."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import (
    Job,
    evaluation_folder,
    model_folder,
    model_name,
    prediction_folder,
)
from nnunetv2_levit.study.kept_settings import keep_settings
from nnunetv2_levit.study.state import test_cases, test_files, test_images


def predict(study: Study, job: Job, device: str) -> None:
    """Predict one part of the test images by all folds together.

    Files are written to a folder of this process and moved when they are whole.

    Raises:
        UserError: the images or the model can't be used, or some cases were not predicted.
    """
    from nnunetv2_levit.evaluation.label_files import label_files
    from nnunetv2_levit.inference.pipeline import FailedCasesError
    from nnunetv2_levit.inference.predict_folder import Settings, predict_folder

    wanted = study.prediction
    settings = Settings(
        folds=study.folds,
        step_size=wanted.step_size,
        mirroring=wanted.mirroring,
        save_probabilities=wanted.save_probabilities,
        preprocessing_workers=wanted.preprocessing_workers,
        exporting_workers=wanted.exporting_workers,
        parts=wanted.parts,
        part=job.part,
        device=device.partition(":")[0],
        progress_bar=False,
    )
    target = prediction_folder(study, job.model, job.seed)
    target.mkdir(parents=True, exist_ok=True)
    for left_over in target.glob(f".part{job.part}-*"):  # by a killed process; this one has the job's lock
        shutil.rmtree(left_over, ignore_errors=True)
    failed = None
    with tempfile.TemporaryDirectory(prefix=f".part{job.part}-", dir=target) as partial:
        try:
            predict_folder(
                model=model_folder(study, job.model, job.seed),
                source=test_images(study),
                output=Path(partial),
                settings=settings,
            )
        except FailedCasesError as error:
            failed = "; ".join(f"{case}: {why}" for case, why in error.reasons.items())
        cases, ending = test_cases(study)
        for old in label_files(target, ending).keys() - set(cases):  # of images that are no longer there
            (target / f"{old}{ending}").unlink(missing_ok=True)
        for name in (*test_files(study, job, (cases, ending)), "dataset.json", "plans.json"):
            if (Path(partial) / name).is_file():
                os.replace(Path(partial) / name, target / name)  # noqa: PTH105
    keep_settings(study, job, cases)
    if failed is not None:
        raise UserError(f"some cases were not predicted, the others are done: {failed}")


def evaluate(study: Study, job: Job) -> None:
    """Evaluate the folds' validations, pooled, and the predicted test images where they have labels.

    Raises:
        UserError: see `evaluation.evaluate.evaluate`.
    """
    from nnunetv2_levit.evaluation.evaluate import evaluate as measure

    asked = study.evaluation
    preprocessed = dataset_folder("nnUNet_preprocessed", study.dataset, advice="preprocess it")
    common: dict[str, Any] = dict(
        name=model_name(study, job.model),
        tolerance=asked.tolerance,
        patient_pattern=asked.patient_pattern,
        workers=asked.workers,
        dataset=preprocessed,
    )
    folder = evaluation_folder(study, job.model, job.seed)
    if study.test is not None and study.test.labels is not None:
        measure(
            predictions=prediction_folder(study, job.model, job.seed),
            truth=study.test.labels,
            protocol=asked.protocol,
            output=folder / "test",
            **common,
        )
    truth = preprocessed / "gt_segmentations"
    # the protocol's probabilities are those of the test images; nnU-Net's validation saves none
    protocol = None if study.test is not None else asked.protocol
    measure(
        model=model_folder(study, job.model, job.seed),
        truth=truth if truth.is_dir() else None,
        folds=study.folds,
        protocol=protocol,
        output=folder / "validation",
        **common,
    )
    keep_settings(study, job, test_cases(study)[0] if study.test is not None else ())
