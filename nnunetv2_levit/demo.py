"""``make demo``: the whole chain on the CPU, through the commands that a user types, with a score at the end."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_levit import schemas
from nnunetv2_levit.dataset_conversion import acdc
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, checked_plan
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.environment import VARIABLE, with_plugin

DATASET_ID = 27
PASS_MARK = 0.7
MARKER = ".nnunetv2_levit_demo"
STRUCTURES = {name: value for name, value in acdc.DESCRIPTION.labels.items() if value > 0}


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


def _prepare_source(output: Path, data: Path | None, patients: int) -> Path:
    """ACDC's layout under ``output/source``: the phantom, or links to evenly chosen patients of the real data."""
    source = output / "source"
    if data is None:
        return write_phantom(source, patients=patients)
    folders = sorted({case.images[0].parent for case in acdc.find_cases(data) if not case.test})
    chosen = [folders[i] for i in np.unique(np.linspace(0, len(folders) - 1, patients).round().astype(int))]
    (source / "training").mkdir(parents=True)
    for folder in chosen:
        (source / "training" / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
    return source


class _Chain:
    """Runs commands one after another with their output in log files, and a progress bar."""

    def __init__(self, output: Path, total: int) -> None:
        self.logs = output / "logs"
        self.logs.mkdir()
        self.environment = {
            **os.environ,
            **{
                f"nnUNet_{name}": str(output.resolve() / "nnunet" / name) for name in ("raw", "preprocessed", "results")
            },
            VARIABLE: with_plugin(os.environ.get(VARIABLE)),
            "nnUNet_n_proc_DA": "2",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self.bar = tqdm(total=total, unit="step", bar_format="{desc}step {n_fmt}/{total_fmt} |{bar}| {elapsed}")
        self.commands: list[dict] = []

    def run(self, *command: str | Path) -> None:
        words = [str(word) for word in command]
        self.bar.set_description(words[0])
        tqdm.write("$ " + shlex.join(words))
        log = self.logs / f"{len(self.commands) + 1}_{words[0]}.txt"
        start = perf_counter()
        program = Path(sys.executable).with_name(words[0])
        with log.open("w") as file:
            process = subprocess.Popen(
                [program, *words[1:]],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            for line in process.stdout:
                file.write(line)
                if "Pseudo dice" in line or "Mean Validation Dice" in line:
                    tqdm.write(
                        "    " + line.split(": ", 1)[-1].strip().replace("np.float32", "").replace("np.float64", "")
                    )
        if process.wait() != 0:
            self.bar.close()
            raise UserError(f"`{shlex.join(words)}` ended with exit code {process.returncode}; its output is in {log}")
        self.commands.append({"command": shlex.join(words), "seconds": round(perf_counter() - start, 1)})
        self.bar.update()


def dice(prediction: np.ndarray, truth: np.ndarray, label: int) -> float:
    """Dice coefficient of one label; NaN where it is in neither array."""
    a, b = prediction == label, truth == label
    total = a.sum() + b.sum()
    return float(2 * (a & b).sum() / total) if total else float("nan")


def _score(predictions: Path, truths: Path) -> dict[str, dict[str, float]]:
    """Dice by case and structure over whole volumes."""
    result = {}
    for path in sorted(predictions.glob("*.nii.gz")):
        prediction = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(truths / path.name)))
        result[path.name.removesuffix(".nii.gz")] = {
            name: round(dice(prediction, truth, value), 4) for name, value in STRUCTURES.items()
        }
    return result


def _draw_report(
    scores: dict[str, dict[str, float]], images: Path, truths: Path, predictions: Path, target: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    ranked = sorted(scores, key=lambda case: np.nanmean(list(scores[case].values())))
    rows = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    colours = ListedColormap(["#4c78a8", "#f2cf5b", "#e45756"])
    figure, axes = plt.subplots(len(rows), 3, figsize=(9, 3.4 * len(rows)), squeeze=False)
    for row, (rank, case) in enumerate(rows.items()):
        image, truth, prediction = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            for path in (images / f"{case}_0000.nii.gz", truths / f"{case}.nii.gz", predictions / f"{case}.nii.gz")
        )
        index = int((truth > 0).sum(axis=(1, 2)).argmax())
        text = ", ".join(f"{name} {value:.2f}" for name, value in scores[case].items())
        for column, (title, labels) in enumerate(
            ((f"{rank}: {case}", None), ("ground truth", truth), (f"prediction: {text}", prediction))
        ):
            axis = axes[row, column]
            axis.imshow(image[index], cmap="gray", vmax=np.percentile(image[index], 99.5))
            if labels is not None:
                masked = np.ma.masked_equal(labels[index], 0)
                axis.imshow(masked, cmap=colours, vmin=1, vmax=3, alpha=0.6, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours(i)) for i in range(3)]
    figure.legend(handles, list(STRUCTURES), loc="lower center", ncol=3, frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(target, dpi=110)
    plt.close(figure)


def run_demo(*, output: Path, data: Path | None = None) -> dict:
    """Data, conversion, planning, training, prediction, scores: all under ``output``.

    Predicts the validation patients of fold 0, which were not trained on, and writes ``scores.json`` and
    ``report.png``. With ``data`` (ACDC as released) twenty of its patients are used instead of the phantom.

    Raises:
        UserError: a step failed (its log is named), or the phantom's mean Dice stayed under the pass mark.
    """
    size = PHANTOM_SIZE if data is None else REAL_SIZE
    if data is not None:
        checked_plan(acdc.ACDC, ConversionRequest(data, DATASET_ID))  # complain before the previous output is removed
    _prepare_output(output)
    source = _prepare_source(output, data, size.patients)
    chain = _Chain(output, total=5)
    raw = output / "nnunet" / "raw" / f"Dataset{DATASET_ID:03d}_{acdc.DESCRIPTION.name}"

    chain.run("nnunetv2_levit", "convert", "acdc", "-i", source, "-d", str(DATASET_ID))
    chain.run(
        "nnUNetv2_plan_and_preprocess", "-d", str(DATASET_ID), "-c", "2d", "-np", "2", "--verify_dataset_integrity"
    )
    patch, batch = str(size.patch), str(size.batch)
    chain.run("nnunetv2_levit", "configure", "-d", str(DATASET_ID), "--patch", patch, patch, "--batch", batch)
    chain.run("nnUNetv2_train", str(DATASET_ID), size.configuration, "0", "-tr", size.trainer, "-device", "cpu")

    held_out = output / "held_out_images"
    held_out.mkdir()
    for case in read_json(raw / "splits_final.json", what="nnU-Net's folds", schema=schemas.SPLITS)[0]["val"]:
        shutil.copy(raw / "imagesTr" / f"{case}_0000.nii.gz", held_out)
    predictions = output / "predictions"
    chain.run(
        *("nnUNetv2_predict", "-d", str(DATASET_ID), "-i", held_out, "-o", predictions, "-c", size.configuration),
        *("-f", "0", "-tr", size.trainer, "-device", "cpu", "-npp", "1", "-nps", "1"),
    )
    chain.bar.close()

    cases = _score(predictions, raw / "labelsTr")
    means = {name: round(float(np.nanmean([case[name] for case in cases.values()])), 4) for name in STRUCTURES}
    mean = round(float(np.mean(list(means.values()))), 4)
    result = {
        "data": "synthetic phantom" if data is None else f"ACDC, {size.patients} patients",
        "trainer": size.trainer,
        "configuration": size.configuration,
        "split": "fold 0: these patients were not trained on",
        "mean_dice": mean,
        "dice": means,
        "cases": cases,
        "pass_mark": PASS_MARK if data is None else None,
        "steps": chain.commands,
        "machine": f"{os.cpu_count()} CPU cores, {platform.python_implementation()} {platform.python_version()}",
    }
    (output / "scores.json").write_text(json.dumps(result, indent=2) + "\n")
    _draw_report(cases, raw / "imagesTr", raw / "labelsTr", predictions, output / "report.png")
    print(f"Dice {means}, mean {mean}: {output / 'report.png'}, {output / 'scores.json'}")
    if data is None and mean < PASS_MARK:
        raise UserError(f"the mean Dice {mean} is under {PASS_MARK}, which a working chain passes: see {chain.logs}")
    return result
