"""A whole report from evaluations: tables, comparison, papers' rows, pictures, and one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnunetv2_levit
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.compare import compare, write_comparison
from nnunetv2_levit.evaluation.html_page import Picture, html_page
from nnunetv2_levit.evaluation.paper_rows import beside_the_papers, tables_of
from nnunetv2_levit.evaluation.qualitative import case_rows, label_names
from nnunetv2_levit.evaluation.speed_accuracy import load_benchmark, measured_points, printed_points
from nnunetv2_levit.evaluation.stored import load_evaluation, with_summaries
from nnunetv2_levit.evaluation.training_curves import write_curves
from nnunetv2_levit.figures import draw_cases, draw_speed_accuracy
from nnunetv2_levit.files import check_writable, write_json, write_text, write_whole, written_together
from nnunetv2_levit.plain_text import markdown_text
from nnunetv2_levit.tables import comparison_markdown, evaluation_markdown, papers_markdown

PAGE = "report.html"


@dataclass(frozen=True)
class ReportRequest:
    """What goes into a report.

    Attributes:
        evaluations: from the name of each model to its result of `evaluate`; the first is the one compared with.
        images: folder of the evaluated images, for the panel of worst, median and best case.
        curves: fold folders whose training curves are drawn.
        benchmark: JSON of `nnunetv2_levit benchmark`, for speed against accuracy.
        networks: name of the network in that JSON for each evaluation's name.
        paper_dataset: the dataset's name in the papers; the evaluated dataset's by default.
    """

    evaluations: Mapping[str, Path]
    output: Path
    images: Path | None = None
    curves: Sequence[Path] = ()
    benchmark: Path | None = None
    networks: dict[str, str] | None = None
    paper_dataset: str | None = None


def write_report(request: ReportRequest) -> Path:
    """Write ``report.html``, ``report.json`` and the tables and pictures within them, or nothing; returns the page.

    Raises:
        UserError: a result or picture can't be had, or the models were not evaluated alike.
    """
    if not request.evaluations:
        raise UserError("give at least one result of `nnunetv2_levit evaluate`")
    if (request.benchmark is None) != (not request.networks):
        raise UserError("--benchmark and --network belong together: NAME=NETWORK for at least one of the results")
    check_writable(request.output, folder=True)
    loaded = [{**load_evaluation(path), "name": name} for name, path in request.evaluations.items()]
    benchmark = None if request.benchmark is None else load_benchmark(request.benchmark)
    if request.images is not None and not request.images.is_dir():
        raise UserError(f"{request.images} is not a folder: give the folder of the evaluated images with --images")
    with written_together(request.output) as folder:
        _write(request, [with_summaries(evaluation) for evaluation in loaded], benchmark, folder)
    return request.output / PAGE


def _write(
    request: ReportRequest, evaluations: Sequence[dict[str, Any]], benchmark: dict[str, Any] | None, folder: Path
) -> None:
    models = ", ".join(evaluation["name"] for evaluation in evaluations)
    dataset = request.paper_dataset or evaluations[0]["dataset"]
    if request.paper_dataset is not None and not tables_of(dataset):
        raise UserError(f"no transcribed paper has a table about {dataset}")
    content: dict[str, Any] = {
        "kind": "report",
        "made_by": f"nnunetv2_levit {nnunetv2_levit.__version__}",
        "evaluations": [
            {key: value for key, value in evaluation.items() if key != "cases"} for evaluation in evaluations
        ],
    }
    title = f"{dataset or 'evaluation'}: {models}"
    parts: list[str | Picture] = [f"# {markdown_text(title)}\n"]

    if len(evaluations) > 1:
        content["comparison"] = compare(request.evaluations)
        write_comparison(content["comparison"], folder)
        parts += [
            _lowered(comparison_markdown(content["comparison"])),
            Picture(folder / "comparison.png", "Each patient's values by model and structure."),
        ]
    for evaluation in evaluations:
        parts.append(_lowered(evaluation_markdown(evaluation)))
    if dataset and tables_of(dataset):
        content["papers"] = beside_the_papers(evaluations, dataset)
        text = papers_markdown(content["papers"])
        write_text(folder / "papers.md", text)
        parts.append(_lowered(text))
    if request.images is not None:
        panel = folder / "cases.png"
        rows, names = case_rows(evaluations, request.images), label_names(evaluations[0])
        write_whole(panel, lambda target: draw_cases(rows, names=names, target=target))
        content["panel"] = {row.rank: {"case": row.case, "slice": row.place} for row in rows}
        caption = (
            f"Worst, median and best case by {evaluations[0]['name']}'s mean DSC (of the whole case, it stands above "
            "each model); cut to the structures."
        )
        parts += ["## Cases\n", Picture(panel, caption)]
    if request.curves:
        write_curves(list(request.curves), folder / "curves.json")
        parts += ["## Training\n", Picture(folder / "curves.png", "Losses and pseudo Dice, read from nnU-Net's logs.")]
    panels = []
    if dataset.lower() == "synapse":
        panels.append(("LeViT-UNet, Table 2: Synapse, RTX 3090, as printed", printed_points()))
    if benchmark is not None:
        points = measured_points(evaluations, benchmark, request.networks or {})
        content["speed"] = points
        panels.append((f"measured: {dataset or 'these cases'}, {benchmark['device']}", points))
    if panels:
        picture = folder / "speed_accuracy.png"
        write_whole(picture, lambda target: draw_speed_accuracy(panels, target))
        parts += ["## Speed and accuracy\n", Picture(picture, "Images per second against mean DSC.")]

    write_json(folder / "report.json", content)
    write_text(folder / PAGE, html_page(title, parts))


def _lowered(markdown: str) -> str:
    """The same text with its headings one level lower."""
    return "\n".join("#" + line if line.startswith("#") else line for line in markdown.split("\n"))
