"""Damaged JSON sent through the commands that read it: a sentence that names the file, or the same result as before.

A mutation is one change of a genuine document at one place, chosen by a seed. `KINDS` lists the files, the command that
reads each, its result, and the changes that no reader could see, because they make another valid document.
"""

import contextlib
import io
import json
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_levit import cli
from tests.inference.model_folders import write_case, write_model_folder

Place = tuple[str | int, ...]
DEEP = json.loads("[" * 90 + "]" * 90)
VALUES: dict[str, Any] = {
    "null": None,
    "list": [],
    "object": {},
    "text": "text",
    "nan": float("nan"),
    "minus one": -1,
    "infinite": float("inf"),
    "nested": DEEP,
}
FAULTS = ("exception", "changed", "unclear")
OPERATIONS = ("drop", *VALUES, "swap", "truncate", "very deep", "twice")


@dataclass(frozen=True)
class Mutation:
    """The damaged text, and what was done to it where."""

    text: str
    place: Place
    operation: str
    old: Any


def _places(value: Any, place: Place = ()) -> list[Place]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in inner for found in ((*place, key), *_places(child, (*place, key)))]


def _swapped(value: Any) -> Any:
    """The value as another type: a number as text, a text as a list, and so on."""
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return {str(index): inner for index, inner in enumerate(value)}
    return [value]


def mutation(document: Any, number: int) -> Mutation:
    """Mutation ``number`` of a document."""
    chance = random.Random(number)
    operation = OPERATIONS[number % len(OPERATIONS)]
    text = json.dumps(document)
    if operation == "truncate":
        return Mutation(text[: chance.randrange(len(text))], (), operation, document)
    # depth first by level, so that the few upper keys are met as often as the many numbers below
    places = _places(document)
    depth = chance.choice(sorted({len(place) for place in places}))
    place = tuple(chance.choice([place for place in places if len(place) == depth]))
    content = json.loads(text)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    old = parent[place[-1]]
    if operation == "drop":
        del parent[place[-1]]
    elif operation == "swap":
        parent[place[-1]] = _swapped(old)
    elif operation in VALUES:
        parent[place[-1]] = VALUES[operation]
    else:
        parent[place[-1]] = "MARK"
    text = json.dumps(content)
    if operation == "infinite":
        text = text.replace("Infinity", "1e400")
    if operation == "very deep":
        text = text.replace('"MARK"', "[" * 100_000 + "]" * 100_000, 1)
    if operation == "twice":
        key = json.dumps(place[-1])
        twice = f"{key}: 0, {key}: {json.dumps(old)}" if isinstance(parent, dict) else '{"a": 0, "a": 1}'
        text = text.replace(f'{key}: "MARK"' if isinstance(parent, dict) else '"MARK"', twice, 1)
    return Mutation(text, place, operation, old)


@dataclass(frozen=True)
class Kind:
    """A file, the call that reads it, and what must not change.

    Attributes:
        result: what the call computed (JSON-able), read after it ended well.
        outputs: what the call writes, removed before each call.
        unseen: whether a mutation makes another valid document, which says why.
    """

    file: Path
    arguments: tuple[Any, ...]
    result: Callable[[], Any]
    outputs: tuple[Path, ...]
    unseen: Callable[[Mutation], bool] = lambda _: False


def call(arguments: tuple[Any, ...]) -> tuple[int, str]:
    """Exit code and standard error of a call in this process; an exception is code -1 and its traceback."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except Exception:
            code = -1
            traceback.print_exc()
    return code, err.getvalue()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def outcome(kind: Kind, document: Any, number: int, expected: Any) -> dict[str, Any]:
    """What mutation ``number`` led to: refused, unchanged, unseen (excluded), or a fault (`FAULTS`)."""
    damaged = mutation(document, number)
    for path in kind.outputs:
        _remove(path)
    before = kind.file.read_text()
    kind.file.write_text(damaged.text)
    try:
        code, err = call(kind.arguments)
        sentences = [line for line in err.splitlines() if line.startswith("error: ")]
        if code == 0:
            result = "unchanged" if kind.result() == expected else "unseen" if kind.unseen(damaged) else "changed"
        elif code in (1, 2) and "Traceback" not in err:
            left = [str(path) for path in kind.outputs if path.exists()]
            named = len(sentences) == 1 and kind.file.name in sentences[0]
            result = "refused" if named and not left else "unseen" if kind.unseen(damaged) and not left else "unclear"
        else:
            result = "exception"
    finally:
        kind.file.write_text(before)
    place = "/".join(map(str, damaged.place))
    faulty = result in FAULTS
    return {"number": number, "operation": damaged.operation, "place": place, "outcome": result,
            "error": err[-1500:] if faulty else (sentences[0] if sentences else "")}  # fmt: skip


def baseline(kind: Kind) -> Any:
    """The result with the genuine file."""
    code, err = call(kind.arguments)
    assert code == 0, err
    return kind.result()


# --- genuine files -------------------------------------------------------------------------------------------------


def _heart(shift: int) -> np.ndarray:
    array = np.zeros((2, 20, 20), dtype=np.uint8)
    array[:, 4:12, 3 + shift : 8 + shift] = 1
    array[:, 5:13, 9 + shift : 14 + shift] = 2
    return array


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "RV": 1, "LV": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "name": "ACDC",
}
PLANS = {
    "dataset_name": "Dataset027_ACDC",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.5, "std": 0.5}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 4,
            "patch_size": [64, 64],
            "spacing": [1.5, 1.5],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "architecture": {"network_class_name": "a.b", "arch_kwargs": {"strides": [[1, 1], [2, 2]]}},
        },
        "2d_small": {"inherits_from": "2d", "patch_size": [48, 48]},
        "3d_fullres": {"patch_size": [8, 64, 64], "batch_size": 2},
    },
}
BENCHMARK = {
    "device": "a machine",
    "precision": "fp32",
    "torch": "2",
    "modes": ["inference"],
    "rows": [
        {
            "network": "levit_unet_128s",
            "patch_size": [64, 64],
            "batch_size": batch,
            "parameters": 16_000_000,
            "gmac_per_image": 1.5,
            "seconds_per_image": {"inference": seconds},
            "not_measured": {},
            "peak_memory_mib": {},
        }
        for batch, seconds in ((1, 0.02), (4, 0.01))
    ],
}


def make(root: Path) -> dict[str, Kind]:
    """Genuine files of every kind below ``root``, and how each is read; nnU-Net's `variables` must be set."""
    raw = root / "raw" / "Dataset027_ACDC"
    preprocessed = root / "preprocessed" / "Dataset027_ACDC"
    cases = ["p1_frame01", "p2_frame01", "p3_frame01"]
    model = root / "model"
    for index, case in enumerate(cases):
        _write(raw / "labelsTr" / f"{case}.nii.gz", _heart(0))
        _write(raw / "imagesTr" / f"{case}_0000.nii.gz", (_heart(0) * 100).astype(np.float32))
        _write(root / "A" / f"{case}.nii.gz", _heart(1 + index))
        _write(root / "B" / f"{case}.nii.gz", _heart(index))
        _write(model / "fold_0" / "validation" / f"{case}.nii.gz", _heart(1))
    msd = root / "Task04"
    for index, case in enumerate(("hippocampus_001", "hippocampus_002")):
        _write(msd / "labelsTr" / f"{case}.nii.gz", _heart(index))
        _write(msd / "imagesTr" / f"{case}.nii.gz", (_heart(index) * 50).astype(np.float32))
    write_model_folder(root / "trained", folds=(0,), patch_size=(32, 32))
    write_case(root / "images", "a", np.random.default_rng(0).random((1, 30, 30)) * 200)
    preprocessed.mkdir(parents=True)
    plans = preprocessed / "nnUNetPlans.json"
    conversion = {"notes": [], "cases": {case: {"patient": f"x{case[:2]}", "shape": [1]} for case in cases}}
    contents = {
        raw / "dataset.json": DATASET,
        raw / "conversion.json": conversion,
        model / "dataset.json": DATASET,
        model / "plans.json": PLANS,
        plans: PLANS,
        preprocessed / "splits_final.json": [{"train": ["p9"], "val": cases}, {"train": cases, "val": ["p9"]}],
        root / "benchmark.json": BENCHMARK,
        msd / "dataset.json": {
            "name": "Hippocampus",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
            "numTraining": 2,
        },
    }
    for path, content in contents.items():
        path.write_text(json.dumps(content))
    for name in ("A", "B"):
        arguments = ("evaluate", "-p", root / name, "-g", raw / "labelsTr", "-d", 27, "-o", root / f"{name}-result")
        code, err = call((*arguments, "--protocol", "levit-unet"))
        assert code == 0, err
    return _kinds(root, raw, preprocessed, model, msd)


def variables(root: Path) -> dict[str, str]:
    """nnU-Net's environment variables for the files of `make`."""
    return {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}


def _kinds(root: Path, raw: Path, preprocessed: Path, model: Path, msd: Path) -> dict[str, Kind]:
    out = root / "out"
    plans = preprocessed / "nnUNetPlans.json"
    target = root / "raw" / "Dataset004_Hippocampus"

    def numbers() -> Any:
        content = _read(out / "evaluation.json")
        return {key: content[key] for key in ("cases", "summary", "mean", "empty", "structures", "patients")}

    def configured() -> Any:
        configurations = _read(plans)["configurations"]
        return [configurations["2d"]["patch_size"], configurations["2d_p96x96"]]

    def converted() -> Any:
        content = _read(target / "dataset.json")
        return [content["labels"], content["channel_names"], _read(target / "conversion.json")["cases"]]

    def reported() -> Any:
        content = _read(out / "report.json")
        (evaluation,) = content["evaluations"]
        return [{key: evaluation[key] for key in ("summary", "mean", "empty")}, content.get("speed")]

    def a_name(change: Mutation) -> bool:
        """A text in place of a text is a name like another."""
        return change.operation == "text" and isinstance(change.old, str)

    def another_dataset(change: Mutation) -> bool:
        # a description without one of the structures is one of a dataset with fewer; [[1], [2]]: both are regions
        return change.operation == "drop" and change.place[:1] == ("labels",)

    def another_evaluation(change: Mutation) -> bool:
        # -1 is a difference of volumes like another; other files are other results; fewer cases are other cases
        return (
            a_name(change)
            or (change.operation == "minus one" and "volume_difference" in str(change.place[-1:]))
            or (change.operation == "drop" and change.place[:1] == ("cases",) and len(change.place) == 2)
            # of a protocol a value may be any number
            or (change.operation == "minus one" and "protocol" in change.place)
        )

    def another_conversion(change: Mutation) -> bool:
        # a case that the summary does not have belongs to the patient that its name says
        return a_name(change) or (
            change.operation == "drop" and change.place[:1] == ("cases",) and len(change.place) == 2
        )

    def another_benchmark(change: Mutation) -> bool:
        # a row less is a benchmark of less; the other row's network is another one then
        return a_name(change) or (
            change.operation == "drop" and change.place[:1] == ("rows",) and len(change.place) == 2
        )

    def another_task(change: Mutation) -> bool:
        # a label that the description lacks is met in the label files, which the sentence names
        return a_name(change) or (change.operation == "drop" and change.place[:1] == ("labels",))

    evaluate = ("evaluate", "-p", root / "A", "-g", raw / "labelsTr", "-d", 27, "-o", out)
    result = root / "A-result" / "evaluation.json"
    predict = (
        *("predict", "-m", root / "trained", "-i", root / "images", "-o", out, "-f", 0, "-device", "cpu"),
        *("-npp", 0, "-nps", 0, "--disable_progress_bar", "--disable_tta"),
    )

    def segmented() -> Any:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(out / "a.nii.gz"))).tolist()

    return {
        # nothing is excluded: what decides a segmentation is compared with the plans in the checkpoint
        "plans.json, predict": Kind(root / "trained" / "plans.json", predict, segmented, (out,)),
        "dataset.json, predict": Kind(root / "trained" / "dataset.json", predict, segmented, (out,)),
        "dataset.json, evaluate": Kind(raw / "dataset.json", evaluate, numbers, (out,), another_dataset),
        "dataset.json, inspect": Kind(
            raw / "dataset.json", ("inspect", "-d", 27, "-o", out, "-w", 1),
            lambda: _read(out / "overview.json"), (out,), another_dataset,
        ),
        "conversion.json, evaluate": Kind(raw / "conversion.json", evaluate, numbers, (out,), another_conversion),
        "splits_final.json, evaluate -m": Kind(
            preprocessed / "splits_final.json", ("evaluate", "-m", model, "-g", raw / "labelsTr", "-o", out),
            numbers, (out,),
            # without its first fold the second is the first, whose cases were not predicted: the sentence says so
            lambda change: a_name(change) or (change.operation == "drop" and len(change.place) == 1),
        ),
        "plans.json, evaluate -m": Kind(
            model / "plans.json", ("evaluate", "-m", model, "-g", raw / "labelsTr", "-o", out), numbers, (out,),
        ),
        "plans.json, configure": Kind(
            plans, ("configure", "-d", 27, "--patch", 96, 96, "--overwrite"), configured, (),
            # another batch size or patch is inherited then; a plan without "2d" has no such configuration
            lambda change: change.place in (("configurations", "2d"), ("configurations",)) or a_name(change),
        ),
        "evaluation.json, compare": Kind(
            result, ("compare", f"A={root / 'A-result'}", f"B={root / 'B-result'}", "-o", out),
            lambda: [_read(out / "comparison.json")[key] for key in ("comparisons", "patient_values")],
            (out,), another_evaluation,
        ),
        "evaluation.json, report": Kind(
            result, ("report", f"A={root / 'A-result'}", "-o", out), reported, (out,), another_evaluation,
        ),
        "benchmark, report": Kind(
            root / "benchmark.json",
            ("report", f"A={root / 'A-result'}", "-o", out, "--benchmark", root / "benchmark.json",
             "--network", "A=levit_unet_128s"),
            reported, (out,), another_benchmark,
        ),
        "dataset.json of the Decathlon, convert": Kind(
            msd / "dataset.json", ("convert", "msd", "-i", msd, "-d", 4, "--splits", "none", "-w", 1),
            converted, (target,), another_task,
        ),
    }  # fmt: skip
