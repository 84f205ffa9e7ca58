"""The page, from label files through the real evaluation."""

import json
import os
import re
import time

import pytest

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.stored import load_evaluation
from nnunetv2_levit.study import load_study, products, report, status
from nnunetv2_levit.study.jobs import (
    Job,
    fold_folder,
    jobs_of,
    model_folder,
    models_of,
    prediction_folder,
    report_folder,
)
from nnunetv2_levit.study.kept_settings import keep_settings, made_with_these_settings
from nnunetv2_levit.study.page import answer_sentence
from nnunetv2_levit.study.pooling import pool_seeds
from nnunetv2_levit.study.state import StudyFiles
from tests.evaluation.conftest import heart, write_labels
from tests.study.conftest import CASES, DESCRIPTION, PLANS

LOG = """2026-01-01 10:00:00.0: Epoch {0}
2026-01-01 10:00:00.0: Current learning rate: 0.01
2026-01-01 10:00:00.0: train_loss 0.5
2026-01-01 10:00:00.0: val_loss 0.4
2026-01-01 10:00:00.0: Pseudo dice [0.5, nan]
2026-01-01 10:00:00.0: Epoch time: {1} s
"""


def finish_training(study, job, *, shift):
    """What nnU-Net leaves of a training whose predictions are ``shift`` columns off."""
    fold = fold_folder(study, job)
    for case in CASES:
        if (int(case[7:10]) % 2 == 1) == (job.fold == 0):
            write_labels(fold / "validation" / f"{case}.nii.gz", heart(shift + int(case[7:10]) % 2))
    (fold / "checkpoint_final.pth").touch()
    (fold / "validation" / "summary.json").write_text('{\n    "mean": {}\n}')
    (fold / "study_training.json").write_text(json.dumps({"parameters": 15_900_000, "epochs": 2, "seed": job.seed}))
    (fold / "training_log_1.txt").write_text(LOG.format(0, 3.0) + LOG.format(1, 5.0))
    (fold.parent / "plans.json").write_text(json.dumps(PLANS))
    (fold.parent / "dataset.json").write_text(json.dumps(DESCRIPTION))


@pytest.fixture
def finished(study):
    """A study of two models and two seeds, trained and predicted; the second model is worse."""
    for job in jobs_of(study).values():
        if job.kind == "train":
            finish_training(study, job, shift=0 if job.model == models_of(study)[0] else 2 + job.seed)
    for model in models_of(study):
        for seed in study.seeds:
            for number in (7, 8, 9):
                target = prediction_folder(study, model, seed) / f"patient{number:03d}_frame01.nii.gz"
                write_labels(target, heart(1 if model == models_of(study)[0] else 3))
    return study


@pytest.fixture
def evaluated(finished):
    """`finished` with its models evaluated, and a page that says nothing."""
    for job in jobs_of(finished).values():
        if job.kind == "evaluate":
            products.evaluate(finished, job)
    report_folder(finished).mkdir()
    (report_folder(finished) / "report.html").touch()
    return finished


def shown(page):
    """The page's text, a table row a line."""
    text = re.sub(r'src="data:[^"]*"|<style>.*?</style>', "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", re.sub(r"</t[dh]>\s*", "| ", text))


def test_the_page_begins_with_the_answer_and_ends_with_the_definitions(finished):
    page = report(finished)
    text = shown(page)
    content = json.loads((page.parent / "report.json").read_text())
    assert content["missing"] == []
    validation = content["sets"]["validation"]["answer"]
    assert validation.startswith("Beyond chance (Holm's p < 0.05, 8 patients) these differ from LeViTUNetTrainer_128s")
    assert "UNet2022Trainer in mean DSC (%) by -" in validation
    test = content["sets"]["test"]["answer"]
    assert test == (
        "No difference from LeViTUNetTrainer_128s can be told from chance: 3 patients have a value in both, and a test "
        "needs 6."
    )
    begun = validation.partition("<")[0]
    order = [text.index(words) for words in ("Test images", "mean DSC (%)", test, begun, "RV", "Definitions")]
    assert order == sorted(order)
    assert text.count("2|P∩T|") == 1
    first_row = next(line for line in text.splitlines() if "15.9|" in line.replace(" ", ""))
    assert "4.0|" in first_row.replace(" ", "") or "4.0" in text  # the median of 3 and 5 seconds


def test_seeds_are_pooled_case_by_case(finished):
    report(finished)
    second = models_of(finished)[1]
    several = [
        json.loads(
            (
                finished.folder
                / "evaluations"
                / f"seed_{seed}"
                / second.folder_name("nnUNetPlans")
                / "validation"
                / "evaluation.json"
            ).read_text()
        )
        for seed in finished.seeds
    ]
    folder = finished.folder / "report" / "models" / second.folder_name("nnUNetPlans") / "validation"
    with pytest.raises(UserError, match="average over seeds"):
        load_evaluation(folder)
    pooled = pool_seeds(several)
    assert pooled["seeds"] == 2
    for index, entry in enumerate(pooled["cases"]):
        values = [evaluation["cases"][index]["metrics"]["LV"]["dice"] for evaluation in several]
        assert values[0] != values[1]
        assert entry["metrics"]["LV"]["dice"] == pytest.approx(sum(values) / 2)
    page = json.loads((finished.folder / "report" / "report.json").read_text())
    assert page["sets"]["validation"]["comparison"]["models"][1] == {
        "name": "UNet2022Trainer",
        "results": 2,
        "pooled_as": "seeds",
    }


def test_a_model_that_lacks_a_result_is_left_out_and_named(finished):
    job = Job("train", models_of(finished)[1], 1, fold=1)
    (fold_folder(finished, job) / "checkpoint_final.pth").unlink()
    page = report(finished)
    content = json.loads((page.parent / "report.json").read_text())
    assert f"{job.id}: waiting" in content["missing"]
    assert [model["name"] for model in content["sets"]["test"]["models"]] == ["LeViTUNetTrainer_128s"]
    assert "only LeViTUNetTrainer_128s has all its results" in content["sets"]["test"]["answer"]
    assert "What is missing" in shown(page)


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        ("[evaluation]\ntolerance = 5\n", {"evaluate"}),
        ("[prediction]\nmirroring = false\n", {"predict"}),
        ("[prediction]\nparts = 3\n", {"predict"}),
        ("[evaluation]\nworkers = 1\n", set()),
    ],
)
def test_results_of_other_settings_are_made_anew(evaluated, study_file, change, outdated):
    """Jobs are found from their files: else tables would mix what the study's file said at different times."""
    jobs = [job for job in jobs_of(evaluated).values() if job.kind in ("predict", "evaluate")]
    cases, _ = StudyFiles(evaluated).test_cases()
    for job in jobs:
        keep_settings(evaluated, job, cases)
        assert made_with_these_settings(evaluated, job, cases)
    study_file.write_text(study_file.read_text() + change)
    changed = load_study(study_file)
    assert {
        job.kind
        for job in jobs_of(changed).values()
        if job.kind in ("predict", "evaluate") and not made_with_these_settings(changed, job, cases)
    } == outdated
    assert (set(status(changed).as_data()["counts"]) == {"done"}) == (not outdated)


@pytest.mark.parametrize(
    ("change", "outdated"),
    [("image", {"predict", "evaluate"}), ("label", {"evaluate"}), ("fewer", {"predict", "evaluate"})],
)
def test_results_of_other_test_images_or_labels_are_made_anew(evaluated, change, outdated):
    jobs = [job for job in jobs_of(evaluated).values() if job.kind in ("predict", "evaluate")]
    for job in jobs:
        keep_settings(evaluated, job, StudyFiles(evaluated).test_cases()[0])
    files = StudyFiles(evaluated)
    assert all(files.made(job) is not None for job in jobs)
    image = sorted(evaluated.test.images.iterdir())[0]
    if change == "fewer":
        image.unlink()
    else:
        corrected = image if change == "image" else sorted(evaluated.test.labels.iterdir())[0]
        later = time.time() + 60
        os.utime(corrected, (later, later))
    states = StudyFiles(evaluated).states()
    assert {job.kind for job in jobs if states[job.id].name != "done"} == outdated


def test_the_validation_of_an_earlier_training_does_not_count(finished):
    job = next(job for job in jobs_of(finished).values() if job.kind == "train")
    final = fold_folder(finished, job) / "checkpoint_final.pth"
    later = time.time() + 60
    os.utime(final, (later, later))
    assert StudyFiles(finished).made(job) is None


def test_one_seeds_results_are_an_ordinary_evaluation(finished, study_file):
    study_file.write_text(study_file.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    study = load_study(study_file)
    report(study)
    model = models_of(study)[1]
    folder = study.folder / "report" / "models" / model.folder_name("nnUNetPlans") / "validation"
    assert load_evaluation(folder)["name"] == "UNet2022Trainer"


def test_no_difference_is_said_as_such():
    row = {"structure": "mean", "patients": 20, "holm_p": 0.4, "mean": 0.01, "ci95": [-0.1, 0.1], "model": "B"}
    comparison = {"reference": "A", "unit": "mm", "tolerance": 2.0, "dimensions": 3}
    comparison["comparisons"] = [{**row, "metric": metric} for metric in ("dice", "hd95", "asd")]
    evaluations = [{"name": "A"}, {"name": "B"}]
    said = answer_sentence(comparison, evaluations, reference="A")
    assert said == "No model differs from A beyond chance in mean DSC or HD95 (20 patients, Holm's p at least 0.05)."


def test_status_reads_epochs_and_times_from_the_logs(finished):
    row = status(finished).rows[0]
    assert (row["epoch"], row["epochs"], row["pseudo_dice"], row["seconds_per_epoch"]) == (2, 2, 0.5, 4.0)
    assert json.loads(json.dumps(status(finished).as_data()))["counts"]["done"] == 12


def test_predictions_are_moved_when_they_are_whole(finished, monkeypatch):
    from nnunetv2_levit.inference import predict_folder as module

    job = Job("predict", models_of(finished)[0], 0, part=0)
    target = prediction_folder(finished, job.model, 0)
    for path in target.iterdir():
        path.unlink()
    left_over = target / ".part0-killed"
    left_over.mkdir()

    def predict(*, model, source, output, settings):
        assert model == model_folder(finished, job.model, 0)
        assert settings.folds == finished.folds
        for number in (7, 8, 9):
            (output / f"patient{number:03d}_frame01.nii.gz").touch()
        assert not list(target.glob("*.nii.gz"))

    monkeypatch.setattr(module, "predict_folder", predict)
    products.predict(load_study(finished.file), job, "cpu")
    assert sorted(path.name for path in target.iterdir()) == [
        *(f"patient{n:03d}_frame01.nii.gz" for n in (7, 8, 9)),
        "settings_part0.json",
    ]
