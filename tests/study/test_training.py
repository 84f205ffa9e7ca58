"""One real training of a study: through the queue, nnU-Net, the evaluation, to the page."""

import json

import pytest

from nnunetv2_levit.study import load_study, run
from nnunetv2_levit.study.jobs import fold_folder, jobs_of, log_file
from tests.conftest import DATASET_ID

STUDY = f"""
[study]
dataset = {DATASET_ID}
configurations = ["2d_p48x40"]
trainers = ["LeViTUNetTrainer_128s_3iterations_2epochs"]
folds = [0]
seeds = [7]
[local]
devices = ["cpu"]
"""


@pytest.mark.slow
def test_a_real_training_comes_to_the_page(preprocessed, tmp_path, monkeypatch):
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "real.toml"
    file.write_text(STUDY)
    study = load_study(file)
    lines = []
    states = run(study, say=lines.append)
    job = next(iter(jobs_of(study).values()))
    assert {state.name for state in states.values()} == {"done"}, log_file(study, job).read_text()[-3000:]
    assert study.folder == tmp_path / "real"
    assert states[job.id].progress.epochs_done == 2
    facts = json.loads((fold_folder(study, job) / "study_training.json").read_text())
    assert (facts["epochs"], facts["seed"]) == (2, 7)
    content = json.loads((study.folder / "report" / "report.json").read_text())
    (model,) = content["sets"]["validation"]["models"]
    assert model["patients"] == 1
    assert content["parameters"] == {job.model.trainer: facts["parameters"]}
