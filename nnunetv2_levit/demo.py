"""``make demo``: the whole chain on the CPU, through the commands that a user types, with a report at the end."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from nnunetv2_levit import schemas
from nnunetv2_levit.dataset_conversion import acdc
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, checked_plan
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json

PROGRAM = "nnunetv2_levit"
DATASET_ID = 27
PASS_MARK = 0.7  # of the mean DSC; tests/test_demo.py shows that untrained networks stay under 0.3
MARKER = ".nnunetv2_levit_demo"


@dataclass(frozen=True)
class Size:
    """How much is done: patients used, patch and batch, iterations of an epoch and epochs."""

    patients: int
    patch: int
    batch: int
    iterations: int
    epochs: int

    @property
    def trainer(self) -> str:
        return f"LeViTUNetTrainer_128s_{self.iterations}iterations_{self.epochs}epochs"

    @property
    def configuration(self) -> str:
        return f"2d_p{self.patch}x{self.patch}"


PHANTOM_SIZE = Size(patients=10, patch=64, batch=8, iterations=50, epochs=7)
REAL_SIZE = Size(patients=20, patch=96, batch=8, iterations=50, epochs=8)


@dataclass(frozen=True)
class Step:
    """One command of ``nnunetv2_levit``, and a sentence that says what it does and why."""

    sentence: str
    command: tuple[str | Path, ...]

    @property
    def words(self) -> list[str]:
        return [PROGRAM, *(str(word) for word in self.command)]


@dataclass(frozen=True)
class Places:
    """Where the demo's files lie below its output folder."""

    output: Path
    size: Size

    @property
    def source(self) -> Path:
        return self.output / "source"

    @property
    def raw(self) -> Path:
        return self.output / "nnunet" / "raw" / f"Dataset{DATASET_ID:03d}_{acdc.DESCRIPTION.name}"

    @property
    def fold(self) -> Path:
        model = f"{self.size.trainer}__nnUNetPlans__{self.size.configuration}"
        return self.output / "nnunet" / "results" / self.raw.name / model / "fold_0"

    @property
    def held_out(self) -> Path:
        return self.output / "held_out_images"

    @property
    def predictions(self) -> Path:
        return self.output / "predictions"

    @property
    def evaluation(self) -> Path:
        return self.output / "evaluation"

    @property
    def report(self) -> Path:
        return self.output / "report"

    @property
    def logs(self) -> Path:
        return self.output / "logs"


def _prepare_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / MARKER).exists())):
        raise UserError(f"{output} exists and was not made by the demo: give another folder with --output")
    if output.is_dir():
        shutil.rmtree(output)
    try:
        output.mkdir(parents=True)
        (output / MARKER).touch()
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): give another folder with --output") from None


def _prepare_source(source: Path, *, data: Path | None, patients: int) -> None:
    """Make ``source`` in ACDC's layout: the phantom, or links to evenly chosen patients of the real data."""
    if data is None:
        print(f"Drawing a synthetic cardiac MRI phantom of {patients} patients: the demo needs no download.")
        write_phantom(source, patients=patients)
        return
    print(f"Taking {patients} patients of {data}, evenly over its disease groups.")
    folders = sorted({case.images[0].parent for case in acdc.find_cases(data) if not case.test})
    chosen = [folders[i] for i in np.unique(np.linspace(0, len(folders) - 1, patients).round().astype(int))]
    (source / "training").mkdir(parents=True)
    for folder in chosen:
        (source / "training" / folder.name).symlink_to(folder.resolve(), target_is_directory=True)


def _hold_out_images(places: Places) -> None:
    """Copy the images of fold 0's validation cases, which are not trained on, to where they are predicted from."""
    splits = read_json(places.raw / "splits_final.json", what="nnU-Net's folds", schema=schemas.SPLITS)
    places.held_out.mkdir()
    for case in splits[0]["val"]:
        shutil.copy(places.raw / "imagesTr" / f"{case}_0000.nii.gz", places.held_out)


def _training_steps(places: Places) -> list[Step]:
    size, dataset = places.size, str(DATASET_ID)
    patch = str(size.patch)
    configuration = size.configuration
    return [
        Step(
            "Converting the images into nnU-Net's raw format, with folds that keep a patient's frames together.",
            ("convert", "acdc", "-i", places.source, "-d", dataset),
        ),
        Step(
            "Checking, planning and preprocessing the dataset: nnU-Net chooses spacing and normalisation from it.",
            ("plan", "-d", dataset, "-c", "2d", "-npfp", "2", "-np", "2", "--verify_dataset_integrity"),
        ),
        Step(
            f"Adding a configuration with patches of {patch}x{patch} pixels, small enough to train on a CPU.",
            ("configure", "-d", dataset, "--patch", patch, patch, "--batch", str(size.batch)),
        ),
        Step(
            f"Training LeViT-UNet-128s on fold 0 for {size.epochs} epochs of {size.iterations} iterations. A line for "
            f"each epoch gives the Dice of {', '.join(_structures())} on validation patches.",
            ("train", dataset, configuration, "0", "-tr", size.trainer, "-device", "cpu"),
        ),
    ]


def _result_steps(places: Places, model_name: str) -> list[Step]:
    size, dataset = places.size, str(DATASET_ID)
    prediction = ("predict", "-d", dataset, "-i", places.held_out, "-o", places.predictions, "-c", size.configuration)
    return [
        Step(
            "Predicting fold 0's validation patients, whom the network has not seen in training.",
            (*prediction, "-f", "0", "-tr", size.trainer, "-device", "cpu", "-npp", "1", "-nps", "1"),
        ),
        Step(
            "Evaluating the predictions: Dice, surface distances and volumes of each structure in each case.",
            (
                *("evaluate", "-p", places.predictions, "-g", places.raw / "labelsTr", "--partial"),
                *("--name", model_name, "-o", places.evaluation),
            ),
        ),
        Step(
            "Writing the report: one page with the tables, the worst, median and best case, and the training curves.",
            (
                *("report", f"{model_name}={places.evaluation}", "--images", places.raw / "imagesTr"),
                *("--curves", places.fold, "-o", places.report),
            ),
        ),
    ]


def _structures() -> list[str]:
    return [name for name, value in acdc.DESCRIPTION.labels.items() if value > 0]


class _Chain:
    """Runs steps one after another: says what each does, keeps its output in a log file, and moves a progress bar."""

    def __init__(self, places: Places, *, total: int) -> None:
        self.logs = places.logs
        self.logs.mkdir()
        nnunet = places.output.resolve() / "nnunet"
        self.environment = {
            **os.environ,
            **{f"nnUNet_{name}": str(nnunet / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_n_proc_DA": "2",
            "nnUNet_def_n_proc": "2",  # nnU-Net starts 8 by default, for seconds each
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self.bar = tqdm(total=total, unit="step", bar_format="step {n_fmt}/{total_fmt} done |{bar}| {elapsed}")

    def run(self, step: Step) -> None:
        """Run one step.

        Raises:
            UserError: it ended with an exit code other than 0; the sentence names its log.
        """
        number = self.bar.n + 1
        command = shlex.join(step.words)
        tqdm.write(f"\n{number}. {step.sentence}\n   $ {command}")
        log = self.logs / f"{number}_{step.words[1]}.txt"
        start = perf_counter()
        code = self._run(step.words, log)
        if code != 0:
            self.bar.close()
            raise UserError(f"`{command}` ended with exit code {code}; its output is in {log}")
        tqdm.write(f"   done in {perf_counter() - start:.0f} s")
        self.bar.update()

    def _run(self, words: list[str], log: Path) -> int:
        """Run a program with its output in ``log`` and its Dice values on the terminal; returns the exit code."""
        program = Path(sys.executable).with_name(words[0])
        with (
            log.open("w") as file,
            subprocess.Popen(
                [program, *words[1:]],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            for line in process.stdout or ():
                file.write(line)
                if "Pseudo dice" in line:
                    _, _, values = line.partition("Pseudo dice ")
                    tqdm.write("   Dice " + values.strip().replace("np.float32", "").replace("np.float64", ""))
        return process.returncode


def run_demo(*, output: Path, data: Path | None = None) -> Path:
    """Data, conversion, planning, training, prediction, evaluation and report: all under ``output``.

    Predicts and evaluates the validation patients of fold 0, which were not trained on. With ``data`` (ACDC as
    released) twenty of its patients are used instead of the phantom.

    Returns:
        The report's page.

    Raises:
        UserError: a step failed (its log is named), or the phantom's mean DSC stayed under the pass mark.
    """
    places = Places(output, PHANTOM_SIZE if data is None else REAL_SIZE)
    if data is not None:
        checked_plan(acdc.ACDC, ConversionRequest(data, DATASET_ID))  # complain before the previous output is removed
    _prepare_output(output)
    _prepare_source(places.source, data=data, patients=places.size.patients)
    training = _training_steps(places)
    results = _result_steps(places, "LeViT-UNet-128s" if data is not None else "LeViT-UNet-128s_on_the_phantom")
    chain = _Chain(places, total=len(training) + len(results))
    for step in training:
        chain.run(step)
    _hold_out_images(places)
    for step in results:
        chain.run(step)
    chain.bar.close()
    page = places.report / "report.html"
    mean = _mean_dsc(places.evaluation / "evaluation.json")
    print(f"\nThe mean DSC over {', '.join(_structures())} is {mean:.3f} in patients that were not trained on.")
    if data is None:
        _check_pass_mark(mean, places.logs)
        print(f"A working chain passes {PASS_MARK} here; a network without training stays under 0.3.")
    print(f"Read {page}: tables, pictures and curves. The numbers are in {places.evaluation / 'evaluation.json'}.")
    return page


def _mean_dsc(evaluation: Path) -> float:
    """The mean DSC over structures in an ``evaluation.json``; 0 where no structure has a value."""
    content = read_json(evaluation, what="a result of `nnunetv2_levit evaluate`", schema=schemas.EVALUATION)
    return float(content["mean"]["dice"]["mean"] or 0.0)


def _check_pass_mark(mean: float, logs: Path) -> None:
    if mean < PASS_MARK:
        raise UserError(f"the mean DSC {mean:.3f} is under {PASS_MARK}, which a working chain passes: see {logs}")
