"""The study's file, what follows from it, and the template."""

import json

import pytest

from nnunetv2_levit.study import init, load_study, plan
from nnunetv2_levit.study.file import job_environment
from nnunetv2_levit.study.jobs import Job, Model, jobs_of, model_name, models_of, needs, results_folder
from nnunetv2_levit.study.time_limits import Limits, limits_of

MODEL = Model("UNet2022Trainer", "2d")


def test_a_file_becomes_jobs_in_an_order_that_has_whole_comparisons_early(study):
    names = list(jobs_of(study))
    assert names[:3] == [
        "train-LeViTUNetTrainer_128s-2d-seed0-fold0",
        "train-UNet2022Trainer-2d-seed0-fold0",
        "train-LeViTUNetTrainer_128s-2d-seed0-fold1",
    ]
    assert names[-1] == "report"
    positions = {name: index for index, name in enumerate(names)}
    for job in jobs_of(study).values():
        assert all(positions[other.id] < positions[job.id] for other in needs(study, job))
    assert [n.id for n in needs(study, Job("predict", MODEL, 1, part=0))] == [
        "train-UNet2022Trainer-2d-seed1-fold0",
        "train-UNet2022Trainer-2d-seed1-fold1",
    ]


def test_a_seed_has_results_of_its_own_and_reaches_the_trainer(study):
    environments = [job_environment(study, seed=seed) for seed in study.seeds]
    assert [e["nnUNet_levit_seed"] for e in environments] == ["0", "1"]
    assert [e["nnUNet_results"] for e in environments] == [str(results_folder(study, seed)) for seed in study.seeds]
    assert len({e["nnUNet_results"] for e in environments}) == 2


def test_the_reference_comes_first_and_names_are_those_of_the_file(study_file, nnunet):
    text = study_file.read_text().replace("folds =", 'reference = "UNet2022Trainer"\nfolds =')
    study_file.write_text(text + '[names]\nUNet2022Trainer = "UNet-2022"\n')
    study = load_study(study_file)
    assert [model_name(study, model) for model in models_of(study)] == ["UNet-2022", "LeViTUNetTrainer_128s"]
    assert study.folder == nnunet / "out"
    assert study.test.images == nnunet / "imagesTs"


def test_plan_counts_and_writes_nothing(study, nnunet):
    before = sorted(nnunet.rglob("*"))
    data = plan(study).as_data()
    assert data["jobs"] == {
        "train": {"all": 8, "done": 0},
        "predict": {"all": 4, "done": 0},
        "evaluate": {"all": 4, "done": 0},
        "report": {"all": 1, "done": 0},
    }
    assert json.loads(json.dumps(data)) == data
    assert "2 models x 2 folds x 2 seeds" in plan(study).text()
    assert sorted(nnunet.rglob("*")) == before


def test_networks_are_built_for_their_parameters(study_file):
    text = study_file.read_text().replace('"LeViTUNetTrainer_128s", "UNet2022Trainer"', '"LeViTUNetTrainer_128s"')
    study_file.write_text(text)
    (model,) = plan(load_study(study_file)).as_data()["models"]
    assert 15e6 < model["parameters"] < 17e6  # the paper's 15.9 M


def test_init_writes_a_study_that_can_be_loaded(nnunet):
    file = init(27, nnunet / "new.toml")
    study = load_study(file)
    assert study.dataset == "Dataset027_ACDC"
    assert study.folds == (0, 1)
    assert study.configurations == ("2d",)
    assert study.folder == nnunet / "ACDC"


# nnU-Net's usual training on an H200 (11 s an epoch), a slow one, and one under a limit of four minutes
@pytest.mark.parametrize(
    ("seconds", "minutes", "expected"),
    [
        (11, 24 * 60, Limits(warning_seconds=76, restarts=4)),
        (400, 24 * 60, Limits(warning_seconds=660, restarts=13)),
        (60, 4, Limits(warning_seconds=120, restarts=1003)),
        (None, 24 * 60, Limits(warning_seconds=510, restarts=10)),
    ],
)
def test_warnings_and_restarts_follow_from_seconds_per_epoch(study_file, seconds, minutes, expected):
    study_file.write_text(study_file.read_text() + f"[slurm]\ntime_minutes = {minutes}\n")
    assert limits_of(load_study(study_file), MODEL, 1000, seconds) == expected


def test_the_functions_keep_their_names_after_everything_was_imported():
    import nnunetv2_levit.study as public
    from nnunetv2_levit.study import study_report, study_status

    assert all(callable(getattr(public, name)) for name in public.__all__), (study_report, study_status)
