"""How many blocks a network needs, in one command: knock-out, truncation, fine-tuning, evaluation, and one table.

The protocol of the attention study (Hasany, Petitjean and Meriaudeau 2023), with a fine-tuning of the whole network for
as many iterations as the truncated ones get, so that the comparison is one of blocks. Every step leaves its result in
the output folder and is not done again.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import nnunetv2_levit
from nnunetv2_levit import schemas, tables
from nnunetv2_levit.analysis.analysed_model import AnalysedModel, load_analysed_model
from nnunetv2_levit.analysis.attention_report import write_knock_out
from nnunetv2_levit.analysis.knockout_study import BASELINE, check_margin, knock_out_study, validation_cases
from nnunetv2_levit.analysis.transformer_blocks import require_blocks, stages
from nnunetv2_levit.analysis.truncation import truncate, truncated_trainer
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.evaluate import evaluate
from nnunetv2_levit.evaluation.html_page import Picture, html_page
from nnunetv2_levit.evaluation.paper_rows import papers
from nnunetv2_levit.files import check_output_folder, read_json, write_json, write_text
from nnunetv2_levit.nnunet.environment import nnunet_folder
from nnunetv2_levit.trainers.naming import canonical_name

ITERATIONS_OF_AN_EPOCH = 250  # nnU-Net's
REPORT, PAGE, SOURCE = "blocks.json", "blocks.html", "checkpoint.json"
STUDY = "attention study"


def tuning_name(trainer: str, iterations: int) -> str:
    """The name by which `train` fine-tunes for ``iterations`` (rounded up to whole epochs of the same length).

    The weights come from the trained model, so that pretrained ones would only be overwritten.
    """
    epochs = -(-iterations // ITERATIONS_OF_AN_EPOCH)
    bare = re.sub(r"(_\d+iterations)?(_\d+epochs)?$", "", trainer).replace("_pretrained", "")
    return canonical_name(f"{bare}_{-(-iterations // epochs)}iterations_{epochs}epochs")


def _deepest(model: AnalysedModel) -> int:
    """Transformer blocks of the network, or of its longest stage."""
    by_stage = stages(require_blocks(model.network, model.trained.trainer_name))
    return max(len(stage) for stage in by_stage.values())


def _check(model: AnalysedModel, blocks: Sequence[int], iterations: int, output: Path) -> None:
    most = _deepest(model)
    truncated_trainer(model.trained, most)
    for number in blocks:
        if not 1 <= number <= most:
            raise UserError(
                f"{model.trained.trainer_name} has 1 to {most} transformer blocks (in each stage, if it has stages), "
                f"not {number}: choose others with --blocks"
            )
        if list(blocks).count(number) > 1:
            raise UserError(f"{number} blocks are named twice: name each number once with --blocks")
    if not blocks:
        raise UserError("no number of blocks is given: name at least one with --blocks")
    if iterations < 1:
        raise UserError(f"a fine-tuning takes at least 1 iteration, not {iterations}: give --iterations 1 or more")
    if not isinstance(model.fold, int):
        raise UserError("fold all has no validation cases to compare on: give a numbered fold with -f")
    check_output_folder(output)
    plans = nnunet_folder("nnUNet_preprocessed") / model.trained.plans.dataset_name
    file = plans / f"{model.trained.plans.plans_name}.json"
    if not file.is_file():
        raise UserError(f"there are no plans {file}: preprocess the dataset that the model was trained on")


def _check_same_checkpoint(model: AnalysedModel, output: Path) -> None:
    """Raise a UserError where networks in ``output`` were made of other weights."""
    file = output / SOURCE
    if file.is_file():
        kept = read_json(file, what="a note of `nnunetv2_levit blocks`", schema=schemas.CHECKPOINT_NOTE)
        if kept["sha256"] != model.checkpoint_digest:
            raise UserError(f"{output} holds networks made of another checkpoint: give another folder with -o")


def _truncated(model: AnalysedModel, blocks: int, output: Path, *, trust_checkpoint: bool) -> tuple[str, Path]:
    """Trainer and checkpoint of the network with its first ``blocks`` blocks; the model itself with all of them."""
    trained, fold = model.trained, f"fold_{model.fold}"
    if blocks == _deepest(model):
        return trained.trainer_name, trained.path / fold / trained.checkpoint
    folder = output / f"truncated_{blocks}"
    if not folder.is_dir():
        truncate(
            trained.path, blocks=blocks, output=folder, checkpoint=trained.checkpoint, trust_checkpoint=trust_checkpoint
        )
    trainer = read_json(folder / "truncation.json", what="a report of truncate")["trainer_after"]
    return trainer, folder / fold / trained.checkpoint


def _tune(model: AnalysedModel, trainer: str, weights: Path, output: Path, device: str) -> Path:
    """Fine-tune one network by nnU-Net's training, or go on where it stopped; returns its model folder."""
    trained = model.trained
    results = output / "nnUNet_results"
    plans = trained.plans.plans_name
    folder = results / trained.plans.dataset_name / f"{trainer}__{plans}__{trained.configuration_name}"
    fold = folder / f"fold_{model.fold}"
    if (fold / "validation" / "summary.json").is_file():
        return folder
    words = ["train", trained.plans.dataset_name, trained.configuration_name, str(model.fold), "-tr", trainer]
    words += ["-p", plans, "-device", device]
    if (fold / "checkpoint_final.pth").is_file():
        words.append("--val")
    elif (fold / "checkpoint_latest.pth").is_file():
        words.append("--c")
    else:
        words += ["-pretrained_weights", str(weights)]
    log = output / f"{trainer}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "nnunetv2_levit.cli", *words],
            env={**os.environ, "nnUNet_results": str(results.resolve())},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise UserError(f"the fine-tuning of {trainer} failed: its last lines are in {log}; mend it and run this again")
    return folder


def printed_rows(trainer: str) -> list[dict[str, Any]]:
    """The attention study's printed Dice of the same network; none for networks that it did not try."""
    names = {"TransUNet": "TransUNet", "UNETR2D": "2D UNETR", "CATS2D": "2D CATS"}
    family = names.get(trainer.partition("Trainer")[0])
    (study,) = (paper for paper in papers() if paper["paper"] == STUDY)
    fullest = study["tables"][-1]["rows"]
    return [row for row in fullest if family is not None and row["method"].startswith(f"{family},")]


def block_study(
    model: str | Path,
    *,
    output: str | Path,
    blocks: Sequence[int] = (12, 3, 1),
    iterations: int = 250,
    fold: int | str = 0,
    checkpoint: str = "checkpoint_final.pth",
    margin: float = 0.01,
    device: str = "cpu",
    trust_checkpoint: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Knock out every block of a trained model, truncate it to ``blocks``, fine-tune each for ``iterations`` and
    evaluate all on the fold's validation cases, beside the numbers that the attention study printed.

    nnU-Net's folders with the model's dataset must be set; nothing is written into them. Fine-tuned models lie in
    ``output``/nnUNet_results. What is done is not done again: start the command once more after an interruption.

    Args:
        blocks: numbers of transformer blocks (in each stage, where there are stages); the network's own number
            fine-tunes the whole network.
        margin: see `attention`.

    Returns:
        What was written as blocks.json.

    Raises:
        UserError: no readable model with attention, no dataset, impossible numbers, or a fine-tuning that failed.
    """
    output = Path(output)
    analysed = load_analysed_model(
        model, fold=fold, checkpoint=checkpoint, device=device, trust_checkpoint=trust_checkpoint
    )
    found = require_blocks(analysed.network, analysed.trained.trainer_name)
    check_margin(margin)
    _check(analysed, blocks, iterations, output)
    _check_same_checkpoint(analysed, output)
    cases, labels = validation_cases(analysed)
    knock_out = knock_out_study(
        analysed, found, cases=cases, labels=labels, output=output, margin=margin, progress=progress
    )
    page = write_knock_out(knock_out, output)
    write_json(output / SOURCE, {"sha256": analysed.checkpoint_digest})
    most = _deepest(analysed)
    rows = []
    for number in tqdm(blocks, desc="truncation and fine-tuning", unit="network", disable=not progress):
        trainer, weights = _truncated(analysed, number, output, trust_checkpoint=trust_checkpoint)
        tuned = _tune(analysed, tuning_name(trainer, iterations), weights, output, device)
        evaluation = evaluate(model=tuned, folds=[fold], name=f"{number} blocks", workers=1)
        facts = load_analysed_model(tuned, fold=fold, trust_checkpoint=trust_checkpoint)
        skipped = knock_out[BASELINE] if number == most else _skipped(knock_out, number)
        rows.append(
            {
                "blocks": number,
                "trainer": tuned.name.partition("__")[0],
                "parameters": sum(parameter.numel() for parameter in facts.network.parameters()),
                "dice": evaluation["mean"]["dice"],
                "hd95": evaluation["mean"]["hd95"],
                "dice_without_fine_tuning": _before(knock_out, skipped, whole=number == most),
            }
        )
    result = {
        "kind": "block study",
        "version": nnunetv2_levit.__version__,
        "model": str(model),
        "trainer": analysed.trained.trainer_name,
        "fold": fold,
        "iterations": iterations,
        "cases": len(cases),
        "knock_out": {key: knock_out[key] for key in ("sentence", "command", "baseline")},
        "rows": rows,
        "printed": printed_rows(analysed.trained.trainer_name),
    }
    write_json(output / REPORT, result)
    table = tables.block_study_markdown(result)
    write_text(output / "blocks.md", table)
    parts: list[str | Picture] = [f"# How many blocks {analysed.trained.trainer_name} needs", table, *page]
    write_text(output / PAGE, html_page(f"Blocks of {analysed.trained.trainer_name}", parts))
    return result


def _skipped(knock_out: dict[str, Any], kept: int) -> dict[str, Any]:
    """The knock-out that leaves the first ``kept`` blocks."""
    (row,) = (
        row
        for row in knock_out["knock_outs"]
        if row["series"] == "cumulative" and row["what"] == "block" and row["kept"] == kept
    )
    found: dict[str, Any] = row
    return found


def _before(knock_out: dict[str, Any], skipped: dict[str, Any], *, whole: bool) -> float | None:
    """Mean Dice with the blocks skipped and no training since; None where truncation gives another network."""
    if knock_out["needs_fine_tuning"] and not whole:
        return None
    base, change = knock_out[BASELINE]["dice"]["mean"], skipped["dice"]["mean"]
    if whole or base is None or change is None:
        return base
    return float(base + change)
