"""The study's page: first the answer, then what it rests on, and every definition once, at the end."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import nnunetv2_levit
from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.compare import compare, write_comparison
from nnunetv2_levit.evaluation.html_page import Picture, html_page
from nnunetv2_levit.evaluation.paper_rows import beside_the_papers, tables_of
from nnunetv2_levit.evaluation.stored import load_evaluation, write_evaluation
from nnunetv2_levit.files import write_json, write_text
from nnunetv2_levit.plain_text import markdown_text
from nnunetv2_levit.study import page
from nnunetv2_levit.study.file import METRICS, Study
from nnunetv2_levit.study.jobs import (
    Job,
    Model,
    evaluation_folder,
    fold_folder,
    model_name,
    models_of,
    report_folder,
    trainings_of,
)
from nnunetv2_levit.study.pooling import pool_seeds
from nnunetv2_levit.study.progress import read_facts
from nnunetv2_levit.study.state import DONE, State, StudyFiles
from nnunetv2_levit.tables import (
    comparison_table,
    empty_table,
    models_table,
    papers_markdown,
    protocol_table,
    structures_table,
)


@dataclass(frozen=True)
class Compared:
    """Pooled evaluations of the models on one set of cases, with the results that they were pooled from."""

    kind: str
    models: dict[Model, dict[str, Any]]
    results: dict[Model, list[Path]]


def _complete_models(study: Study, states: dict[str, State], kind: str) -> dict[Model, list[Path]]:
    """Results of all seeds, for the models that have them all."""
    result = {}
    for model in models_of(study):
        jobs = [Job("evaluate", model, seed) for seed in study.seeds]
        files = [evaluation_folder(study, model, job.seed) / kind for job in jobs]
        if all(states[job.id].made is not None for job in jobs) and all(f.is_dir() for f in files):
            result[model] = files
    return result


def _pooled(study: Study, states: dict[str, State], kind: str) -> Compared:
    results = _complete_models(study, states, kind)
    models = {}
    for model, files in results.items():
        several = [load_evaluation(file) for file in files]
        average = {**pool_seeds(several), "kind": schemas.POOLED, "predictions": str(study.folder)}
        models[model] = {**(several[0] if len(several) == 1 else average), "name": model_name(study, model)}
        folder = report_folder(study) / "models" / model.folder_name(study.plans) / kind
        write_evaluation(models[model], folder)
    return Compared(kind, models, results)


def seconds_of(study: Study, model: Model, curves: dict[str, Any]) -> float | None:
    """Median seconds of an epoch over a model's trainings."""
    values = [
        epoch["seconds"]
        for seed in study.seeds
        for job in trainings_of(study, model, seed)
        if job.id in curves
        for epoch in curves[job.id]["epochs"]
    ]
    return median(values) if values else None


def _parameters(study: Study, model: Model) -> int | None:
    facts = [read_facts(fold_folder(study, job)) for seed in study.seeds for job in trainings_of(study, model, seed)]
    return next((fact["parameters"] for fact in facts if "parameters" in fact), None)


def _read_curves(study: Study) -> dict[str, Any]:
    """Epochs of every training that has some, by job."""
    from nnunetv2_levit.evaluation.training_curves import read_fold

    result = {}
    for model in models_of(study):
        for seed in study.seeds:
            for job in trainings_of(study, model, seed):
                try:
                    run = read_fold(fold_folder(study, job))
                except UserError:
                    continue  # not begun, or in its first epoch
                result[job.id] = run | {"run": f"{model_name(study, model)}, seed {seed}"}
    return result


def _missing(study: Study, states: dict[str, State]) -> list[str]:
    """A sentence for each job but the report that has no result: which and why."""
    return [
        f"{state.job.id}: {state.name}" + (f" ({state.why})" if state.why else "")
        for state in states.values()
        if state.name != DONE and state.job.kind != "report"
    ]


def _comparison(study: Study, compared: Compared) -> dict[str, Any] | None:
    if len(compared.models) < 2:
        return None
    return compare({evaluation["name"]: compared.results[m] for m, evaluation in compared.models.items()})


def write_study_report(study: Study) -> Path:
    """Write ``report.html`` and, beside it, ``report.json``, tables and pictures; returns the page.

    What is measured on the test images comes first, where they have labels; a model that lacks a result of some seed is
    left out and named. Seconds an epoch stand apart in the JSON (``timing``): all else is the same in every run.

    Raises:
        UserError: no model has been evaluated with all seeds yet, or the evaluations don't fit together.
    """
    states = StudyFiles(study).states(progress=False)
    kinds = ["validation"]
    if study.test is not None and study.test.labels is not None:
        kinds.insert(0, "test")
    several = [compared for kind in kinds if (compared := _pooled(study, states, kind)).models]
    if not several:
        raise UserError(
            f"no model of {study.file} has been evaluated with all its folds and seeds yet: see "
            f"`nnunetv2_levit study {study.file.name} status`"
        )
    folder = report_folder(study)
    curves = _read_curves(study)
    missing = _missing(study, states)
    parameters = {model_name(study, m): _parameters(study, m) for m in models_of(study)}
    timing = {model_name(study, m): seconds_of(study, m, curves) for m in models_of(study)}
    content: dict[str, Any] = {
        "kind": "study",
        "made_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
        "study": study.name,
        "dataset": study.dataset,
        "seeds": list(study.seeds),
        "folds": list(study.folds),
        "parameters": parameters,
        "missing": missing,
        "sets": {},
    }
    parts: list[str | Picture] = [f"# {markdown_text(study.name)}\n"]
    details: list[str | Picture] = []
    for compared in several:
        evaluations = list(compared.models.values())
        comparison = _comparison(study, compared)
        answer = page.answer_sentence(comparison, evaluations, reference=_reference(study))
        content["sets"][compared.kind] = {
            "answer": answer,
            "comparison": comparison,
            "models": [{key: value for key, value in e.items() if key != "cases"} for e in evaluations],
        }
        parts += [
            f"## {page.TITLES[compared.kind]}\n",
            models_table(evaluations, study.evaluation.metrics, parameters, timing),
            f"\n{markdown_text(answer)}\n",
        ]
        details += _details(study, compared, comparison, folder / compared.kind)
    if missing:
        parts.append("## What is missing\n\n" + "\n".join(f"- {markdown_text(line)}" for line in missing) + "\n")
    parts += details
    papers = _papers(study, several[0])
    if papers is not None:
        content["papers"] = papers
        parts.append(page.lowered(papers_markdown(papers)))
    if curves:
        write_json(folder / "curves.json", list(curves.values()))
        parts += page.curve_parts(study, curves, folder)
    parts.append(page.definitions(next(iter(several[0].models.values())), study))
    write_json(folder / "report.json", content)
    write_json(folder / "timing.json", timing)
    target = folder / "report.html"
    write_text(target, html_page(study.name, parts))
    return target


def _reference(study: Study) -> str:
    return model_name(study, models_of(study)[0])


def _details(study: Study, compared: Compared, comparison: dict[str, Any] | None, folder: Path) -> list[str | Picture]:
    """Structures, pairwise differences, cases where a structure is empty, and a paper's own figures."""
    evaluations = list(compared.models.values())
    title = page.TITLES[compared.kind]
    parts: list[str | Picture] = [f"## {title}: structures\n", structures_table(evaluations, METRICS)]
    if comparison is not None:
        write_comparison(comparison, folder)
        parts += [
            f"## {title}: compared with {markdown_text(comparison['reference'])}\n",
            "Model minus reference, one value a patient.\n",
            comparison_table(comparison),
            Picture(folder / "comparison.png", f"{title}: each patient's values by model and structure."),
        ]
    if empty := empty_table(evaluations):
        parts += [f"## {title}: empty structures\n", empty]
    for evaluation in evaluations:
        if "protocol" in evaluation:
            parts += [
                f"### {markdown_text(evaluation['name'])}, protocol {evaluation['protocol']['name']}\n",
                protocol_table(evaluation["protocol"]),
            ]
    return parts


def _papers(study: Study, compared: Compared) -> dict[str, Any] | None:
    evaluations = list(compared.models.values())
    dataset = study.evaluation.paper_dataset or evaluations[0]["dataset"]
    return beside_the_papers(evaluations, dataset) if dataset and tables_of(dataset) else None
