"""About 700 bad calls of every subcommand, each of which must end in one sentence and leave nothing behind.

    python docs/lab/experiments/hostile_calls.py [-o outcomes.json] [--only predict evaluate …]

Every call is a good one with one thing wrong: a value of a wrong kind, an odd path or number, a flag left out or too
many, files exchanged. All of it happens in a scratch folder; a call that names a path outside it is not run. Trainings,
planning and the demo end where nnU-Net would start. Exit code 1 where a call ends otherwise than with 2 (0 or 1, where
the value is odd and usable), in a sentence that names neither file nor value nor flag, or leaves or changes a file
although it was refused.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tqdm import tqdm

from nnunetv2_levit import cli
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.nnunet import environment
from tests.inference.model_folders import write_model_folder
from tests.support import json_fuzz

LONGEST_CALL = 120  # seconds
MARKUP = "![y](http://evil/y.png)"
LONG = "x" * 300
IMAGES = "raw/Dataset027_ACDC/imagesTr"
STARTED = "the call got as far as nnU-Net"

# what is wrong with a value of each kind; those of ODD may also be carried out
NUMBERS = ("x", "", "1.5", "nan", "inf", "-1", "0", "99999999999", "1e30")
REFUSED = {
    "folder": ("", "file.txt", "file.txt/under", "missing", "broken_link", "a b/\nü", LONG, "empty"),
    "file": ("", "file.txt", "file.txt/under", "missing", "broken_link", "a b/\nü", LONG, "empty"),
    "new folder": ("", "file.txt", "file.txt/under", LONG, "broken_link"),
    "new file": ("", "empty", "file.txt/under", LONG, "broken_link"),
    "count": NUMBERS,
    "blocks": NUMBERS,
    "real": ("x", "", "nan", "inf", "-1"),
    "name": ("missing", "", "../out", "a/b", LONG, MARKUP),
    "choice": ("missing", "", LONG, MARKUP),
}
ODD = {
    "workers": ("x", "", "1.5", "nan", "-1", "0", "99999999999", "1e30"),
    "new folder": ("new ü folder/a\nb",),
    "new file": ("new ü folder/a b.json", "new/"),
    "real": ("0", "1e30"),
    "label": ("", "=HYPERLINK(1)", MARKUP, LONG, "a\nb", "$x^2$", "<script>"),
}


@dataclass(frozen=True)
class Slot:
    """A flag (None: no flag) of a good call, its value, and the kind of value it takes (None: it is kept as it is)."""

    flag: str | None
    value: str
    kind: str | None = None
    required: bool = False

    def words(self) -> list[str]:
        return [word for word in (self.flag, self.value) if word is not None]


@dataclass(frozen=True)
class BadCall:
    """Words of a call, what is wrong with it, and what its sentence may name."""

    words: tuple[str, ...]
    fault: str
    names: tuple[str, ...]
    may_work: bool = False


GOOD: dict[str, tuple[Slot, ...]] = {
    "convert": (
        Slot(None, "acdc", "choice", True), Slot("-i", "source", "folder", True), Slot("-d", "28", "count", True),
        Slot("--splits", "crossval", "choice"), Slot("-w", "1", "workers"), Slot("--organs", "8", "organs"),
    ),
    "inspect": (
        Slot("-d", "27", "count", True), Slot("-o", "new", "new folder"), Slot("-w", "1", "workers"),
    ),
    "configure": (
        Slot("-d", "27", "count", True), Slot("--patch", "48"), Slot(None, "48", "count"),
        Slot("--batch", "2", "count"), Slot("--from", "2d", "choice"), Slot("--name", "mine", "new name"),
        Slot("-p", "nnUNetPlans", "name"),
    ),
    "train": (
        Slot(None, "27", "name", True), Slot(None, "2d", "choice", True), Slot(None, "0", "fold", True),
        Slot("-tr", "LeViTUNetTrainer_128s", "name"), Slot("-p", "nnUNetPlans", "name"),
        Slot("-pretrained_weights", "model/fold_0/checkpoint_final.pth", "file"),
        Slot("-num_gpus", "1", "gpus"), Slot("-device", "cpu", "choice"),
    ),
    "plan": (
        Slot("-d", "27", "count", True), Slot("-c", "2d", "choice"), Slot("-np", "1", "count"),
        Slot("-npfp", "1", "count"), Slot("-gpu_memory_target", "8", "memory"),
        Slot("-pl", "ExperimentPlanner", "name"),
    ),
    "predict": (
        Slot("-m", "model", "folder", True), Slot("-i", "images", "folder", True),
        Slot("-o", "new", "new folder", True), Slot("-f", "0", "fold"),
        Slot("-chk", "checkpoint_final.pth", "name"), Slot("-step_size", "0.5", "step"),
        Slot("-npp", "0", "workers"), Slot("-nps", "0", "workers"), Slot("-num_parts", "1", "parts"),
        Slot("-part_id", "0", "part"), Slot("-device", "cpu", "choice"),
        Slot("--disable_progress_bar", "--disable_tta"),
    ),
    "evaluate": (
        Slot("-p", "A", "folder", True), Slot("-g", "raw/Dataset027_ACDC/labelsTr", "folder", True),
        Slot("-d", "27", "dataset"), Slot("-o", "new", "new folder"), Slot("--tolerance", "2", "real"),
        Slot("--protocol", "levit-unet", "choice"), Slot("--name", "A", "label"), Slot("--patient", "(p.)", "pattern"),
        Slot("-w", "1", "workers"),
    ),
    "compare": (
        Slot(None, "A-result", "file", True), Slot(None, "B-result", "file"), Slot("-o", "new", "new folder", True),
    ),
    "report": (
        Slot(None, "A-result", "file", True), Slot("-o", "new", "new folder", True), Slot("--images", IMAGES, "folder"),
        Slot("--curves", "validated/fold_0", "folder"), Slot("--benchmark", "benchmark.json", "file"),
        Slot("--network", "A-result=levit_unet_128s", "name"), Slot("--paper-dataset", "ACDC", "label"),
    ),
    "curves": (Slot(None, "validated/fold_0", "folder", True), Slot("-o", "new.json", "new file", True)),
    "benchmark": (
        Slot("--networks", "levit_unet_128s", "name"), Slot("--patch", "32", "patch"), Slot("--batch", "1", "count"),
        Slot("--repetitions", "1", "count"), Slot("--classes", "4", "count"), Slot("--modes", "inference", "name"),
        Slot("--device", "cpu", "choice"), Slot("-o", "new.json", "new file"), Slot("--no-memory", "--no-memory"),
    ),
    "export": (
        Slot("-m", "levit", "folder", True), Slot("-o", "new.onnx", "new file", True), Slot("-f", "0", "fold"),
        Slot("-chk", "checkpoint_final.pth", "name"),
    ),
    "truncate": (
        Slot("-m", "levit", "folder", True), Slot("--blocks", "1", "blocks", True),
        Slot("-o", "new", "new folder", True),
        Slot("-chk", "checkpoint_final.pth", "name"), Slot("--device", "cpu", "choice"),
    ),
    "trainers": (),
    "env": (),
    "enable": (),
    "disable": (),
    "demo": (Slot("-o", "new", "new folder"), Slot("--data", "source", "folder")),
}  # fmt: skip
REFUSED |= {
    "organs": NUMBERS,
    "pattern": ("(", "", "nothing", "(.*", "()", "(?P<x"),
    "new name": ("2d", "3d_fullres", "", "../out", "a/b", "a__b", LONG, MARKUP),
    "gpus": NUMBERS,
    "memory": ("x", "", "nan", "inf", "-1", "0"),
    "fold": ("x", "", "1.5", "nan", "-1", "99999999999", "1e30", "7"),
    "step": ("x", "", "nan", "inf", "-1", "0", "1e30"),
    "parts": ("x", "", "1.5", "nan", "-1", "0", "1e30"),
    "part": ("x", "", "1.5", "nan", "-1", "1", "99999999999"),
    "dataset": NUMBERS,
    "patch": ("x", "", "-32", "0", "99999", "nan", "32x", "32x32x32", "1e30", "99999999999"),
}
# calls that are wrong as a whole
EXTRA: tuple[tuple[str, ...], ...] = (
    (), ("nothing",), ("",), (MARKUP,), ("predict",),
    ("predict", "-m", "model", "-d", "27", "-i", "images", "-o", "new"),
    ("predict", "-d", "27", "-c", "2d", "-i", "images", "-o", "new"),
    ("predict", "-d", "99", "-c", "2d", "-i", "images", "-o", "new"),
    ("predict", "-m", "model", "-i", "images", "-o", "images", "-f", "0", "-device", "cpu"),
    ("predict", "-m", "model", "-i", "images", "-o", "new", "-f", "0", "0", "-device", "cpu"),
    ("predict", "-m", "images", "-i", "model", "-o", "new", "-f", "0", "-device", "cpu"),
    ("predict", "-m", "model", "-i", "A", "-o", "new", "-f", "0", "-device", "cpu"),
    ("predict", "-m", "model", "-i", "images", "-o", "new", "-f", "0", "-device", "cpu",
     "-prev_stage_predictions", "A"),
    ("predict", "-m", "validated", "-i", "images", "-o", "new", "-f", "0", "-device", "cpu"),
    ("evaluate",), ("evaluate", "-p", "A"), ("evaluate", "-p", "A", "-m", "validated"),
    ("evaluate", "-p", "A", "-g", "images", "-d", "27", "-o", "new"),
    ("evaluate", "-p", "images", "-g", "A", "-d", "27", "-o", "new"),
    ("evaluate", "-p", "A", "-g", "A", "-o", "new"), ("evaluate", "-m", "model", "-o", "new"),
    ("evaluate", "-p", "A", "-g", "B", "-d", "27", "-o", "new", "--protocol", "isic"),
    ("evaluate", "-p", "A-result", "-g", "B-result", "-d", "27", "-o", "new"),
    ("compare", "A-result", "-o", "new"), ("compare", "A", "B", "-o", "new"),
    ("compare", "benchmark.json", "A-result", "-o", "new"), ("compare", "A-result", "A-result", "-o", "new"),
    ("compare", "=A-result", "B-result", "-o", "new"), ("compare", "A-result,", "B-result", "-o", "new"),
    ("compare", "x=A-result", "x=B-result", "-o", "new"),
    ("report", "A-result,B-result", "-o", "new"), ("report", "A-result", "A-result", "-o", "new"),
    ("report", "A-result", "-o", "new", "--network", "x"), ("report", "A-result", "-o", "new", "--network", "x=y"),
    ("report", "A-result", "-o", "new", "--benchmark", "A-result/evaluation.json"),
    ("curves", "validated", "-o", "new.json"), ("curves", "validated/fold_0", "-o", "new.png"),
    ("curves", "validated/fold_0", "-o", "validated"),
    ("convert", "acdc"), ("convert", "acdc", "-i", "Task04", "-d", "28"),
    ("convert", "msd", "-i", "source", "-d", "28"),
    ("convert", "acdc", "-i", "source", "-d", "27"), ("convert", "acdc", "-i", "source", "-d", "1000"),
    ("convert", "acdc", "-i", "source", "-d", "28", "--spacing", "-1", "1", "1"),
    ("convert", "acdc", "-i", "source", "-d", "28", "--spacing", "nan", "1", "1"),
    ("convert", "acdc", "-i", "source", "-d", "28", "--spacing", "1", "1"),
    ("convert", "acdc", "-i", "source", "-d", "28", "--spacing", "1", "1", "1"),
    ("convert", "acdc", "-i", "source", "-d", "28", "--test-split", "transunet"),
    ("convert", "synapse", "-i", "source", "-d", "28"), ("convert", "isic", "-i", "source", "-d", "28"),
    ("configure", "-d", "27", "--patch", "48"),
    ("configure", "-d", "27", "--patch", "48", "48", "--name", "2d", "--overwrite"),
    ("configure", "-d", "27", "--patch", "48", "48", "--from", "3d_fullres"),
    ("benchmark", "--networks", "levit_unet_128s", "--patch", "32", "-o", "new.md"),
    ("benchmark", "--networks", "levit_unet_128s", "--patch", "32", "-o", "new.png"),
    ("benchmark", "--networks", "levit_unet_128s", "--modes", "onnx", "--device", "cuda"),
    ("export", "-m", "levit", "-o", "new.json"), ("export", "-m", "model", "-o", "new"),
    ("truncate", "-m", "model", "--blocks", "1", "-o", "new"),
    ("truncate", "-m", "levit", "--blocks", "1", "-o", "levit"),
    ("truncate", "-m", "levit", "--blocks", "12", "-o", "new"),
    ("train", "27", "2d", "0", "-tr", "LeViTUNetTrainer_384", "-device", "cpu"),
    ("train", "27", "2d", "0", "-tr", "TransUNetTrainer_12blocks", "-device", "cpu"),
    ("train", "27", "2d", "0", "-tr", "LeViTUNetTrainer_conv_identity", "-device", "cpu"),
    ("train", "27", "2d", "0", "-tr", "LeVitUnetTrainer", "-device", "cpu"),
    ("train", "27", "2d", "0", "--c", "--val", "-device", "cpu"), ("train", "27", "2d", "0", "--val", "-device", "cpu"),
    ("train", "27", "3d_fullres", "0", "-tr", "LeViTUNetTrainer", "-device", "cpu"),
    ("train", "99", "2d", "0", "-device", "cpu"), ("train", "27", "2d", "5", "-device", "cpu"), ("train",),
    ("train", "27", "2d", "0", "-device", "cpu", "-pretrained_weights", "images/a_0000.nii.gz"),
    ("train", "27", "2d", "0", "-device", "cpu", "--nothing"),
    ("plan",), ("plan", "-d", "99"), ("plan", "-d"), ("plan", "-d", "27", "--nothing"),
    ("demo", "-o", "images"), ("demo", "-o", "new", "--data", "Task04"),
)  # fmt: skip


FLAGS = ("(-p", "(-m", "-d and -c")
"""What may be missing in a call, as the sentence says it."""


def bad_calls() -> list[BadCall]:
    """Every good call with one thing wrong, and `EXTRA`."""
    calls = []
    for command, slots in GOOD.items():
        names = tuple(word for slot in slots for word in slot.words())
        for position, slot in enumerate(slots):
            for table, may_work in ((REFUSED, False), (ODD, True)):
                for value in table.get(slot.kind or "", ()):
                    replaced = [*slots[:position], Slot(slot.flag, value), *slots[position + 1 :]]
                    words = (command, *(word for each in replaced for word in each.words()))
                    fault = f"{slot.flag or 'argument'} {value!r}"[:80]
                    calls.append(BadCall(words, fault, (*slot.words()[:1], value), may_work))
            if slot.required:
                rest = tuple(word for each in slots if each is not slot for word in each.words())
                calls.append(BadCall((command, *rest), f"without {slot.flag or slot.value}", (*names, command)))
            if slot.flag and slot.kind and position == len(slots) - 1:
                calls.append(BadCall((command, *names[:-1]), f"{slot.flag} without value", (slot.flag,)))
        calls.append(BadCall((command, *names, "--nothing"), "an unknown flag", ("--nothing",)))
    calls += [BadCall(words, "a wrong call", (*words, "command", *FLAGS)) for words in EXTRA]
    return calls


def make(root: Path) -> None:
    """Everything that the good calls name, below ``root``."""
    json_fuzz.make(root)
    write_phantom(root / "source", patients=2, size=24, slices=2)
    (root / "model").rename(root / "validated")
    (root / "trained").rename(root / "model")
    fold = root / "validated" / "fold_0"
    (fold / "training_log_a.txt").write_text("".join(
        f"2026-11-20 05:37:4{epoch}.1: {line}\n" for epoch in (0, 1) for line in (
            f"Epoch {epoch}", "Current learning rate: 0.01", "train_loss 0.1", "val_loss 0.1",
            "Pseudo dice [np.float32(0.9), np.float32(0.5)]", "Epoch time: 31.5 s")
    ))  # fmt: skip
    write_model_folder(root / "levit", folds=(0,), patch_size=(32, 32), trainer="LeViTUNetTrainer_128s")
    preprocessed = root / "preprocessed" / "Dataset027_ACDC"
    shutil.copy(root / "raw" / "Dataset027_ACDC" / "dataset.json", preprocessed)
    shutil.copytree(root / "images", preprocessed / "nnUNetPlans_2d")
    (root / "results" / "Dataset027_ACDC").mkdir(parents=True)
    (root / "file.txt").write_text("a file\n")
    (root / "empty").mkdir()
    (root / "broken_link").symlink_to("nowhere/at/all")


def state(root: Path) -> dict[str, tuple]:
    """Kind, size and time of every path below the root."""
    result = {}
    for path in root.rglob("*"):
        facts = path.lstat()
        # a folder's time changes where a temporary file came and went
        result[str(path.relative_to(root))] = (
            (facts.st_mode,) if path.is_dir() else (facts.st_mode, facts.st_size, facts.st_mtime_ns)
        )
    return result


def restore(root: Path, pristine: Path, changed: set[str]) -> None:
    """Put back what a call changed."""
    for name in sorted(changed, reverse=True):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in sorted(changed):
        original = pristine / name
        if original.is_dir() and not original.is_symlink():
            shutil.copytree(original, root / name, symlinks=True, dirs_exist_ok=True)
        elif os.path.lexists(original):
            shutil.copy2(original, root / name, follow_symlinks=False)


def leads_out(words: tuple[str, ...], root: Path) -> bool:
    """Whether a word could be a path outside the scratch folder, which is the current one."""
    parts = [part for word in words for part in re.split("[=,]", word) if "://" not in part]
    return any(Path(part).is_absolute() or ".." in Path(part).parts[1:] or part == ".." for part in parts)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"over {LONGEST_CALL} seconds")


def run(words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and what was printed; an exception is code -1 and its traceback."""
    printed = io.StringIO()
    signal.alarm(LONGEST_CALL)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.main(list(words))
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            code = -1
            traceback.print_exc()
        finally:
            signal.alarm(0)
    return code, printed.getvalue()


def judged(call: BadCall, code: int, printed: str, changed: set[str]) -> dict[str, Any]:
    """How a call ended, and whether it should have."""
    sentences = [line for line in printed.splitlines() if "error: " in line]
    said = sentences[-1] if sentences else ""
    allowed = {2, 0, 1} if call.may_work else {2}
    faults = []
    if code == -1 or "Traceback" in printed:
        faults.append("exception")
    if code not in allowed:
        faults.append(f"exit code {code}")
    if code != 0:
        plain = " ".join(re.findall(r"\w+", said))
        named = [
            name for name in call.names if name.strip() and (name in said or name.strip("-").replace("_", " ") in said)
        ]
        named += [name for name in call.names if (w := " ".join(re.findall(r"\w+", name))) and w[:40] in plain]
        if len(sentences) != 1 or not (named or "''" in said or "Dataset" in said or "error: argument" in said):
            faults.append("unclear sentence")
        if changed and code == 2:
            faults.append("left behind: " + ", ".join(sorted(changed)[:3]))
    result = {"call": " ".join(map(repr, call.words))[:300], "wrong": call.fault, "code": code, "said": said[:600]}
    return {**result, **({"faults": faults, "printed": printed[-1500:]} if faults else {})}


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by subcommand and exit code, odd calls that were carried out, and faults in full."""
    counts: dict[str, Counter] = {}
    for outcome in outcomes:
        counts.setdefault(outcome["call"].split(" ")[0].strip("'"), Counter())[str(outcome["code"])] += 1
    return {
        "calls": len(outcomes),
        "exit codes": {name: dict(sorted(codes.items())) for name, codes in counts.items()},
        "carried out": [f"{outcome['call'].split(' ')[0]}: {outcome['wrong']}" for outcome in outcomes
                        if outcome["code"] == 0],
        "faults": [outcome for outcome in outcomes if "faults" in outcome],
    }  # fmt: skip


@contextlib.contextmanager
def harmless(root: Path):
    """nnU-Net's folders and site-packages below the root, and nothing of nnU-Net's started."""

    def started(*_: Any, **__: Any) -> None:
        print(STARTED)
        raise SystemExit(0)

    started_by = (
        ("nnunetv2.run.run_training", "run_training"),
        ("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "extract_fingerprints"),
        ("nnunetv2_levit.demo", "_Chain"),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {**json_fuzz.variables(root), "HOME": str(root)}))
        stack.callback(os.chdir, Path.cwd())
        os.chdir(root)
        environment.set_up_process()
        stack.enter_context(mock.patch.object(environment, "_start_up_file", return_value=root / "start_up.pth"))
        for module, name in started_by:
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, started))
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file of counts, odd calls carried out, and faults")
    parser.add_argument("--only", nargs="+", help="these subcommands alone")
    arguments = parser.parse_args()
    output = arguments.output and arguments.output.resolve()
    calls = [call for call in bad_calls() if not arguments.only or set(call.words[:1]) & set(arguments.only)]
    outcomes = []
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        root, pristine = Path(name).resolve() / "scratch", Path(name).resolve() / "pristine"
        root.mkdir()
        with harmless(root):
            make(root)
            shutil.copytree(root, pristine, symlinks=True)
            before = state(root)
            for command, slots in GOOD.items():
                code, printed = run((command, *(word for slot in slots for word in slot.words())))
                assert code == 0 or printed.rstrip().endswith(STARTED), (command, code, printed)
                now = state(root)
                restore(
                    root, pristine, {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
                )
            for call in tqdm(calls, desc="bad calls"):
                if leads_out(call.words, root):
                    raise RuntimeError(f"a call names a path outside the scratch folder: {call.words}")
                code, printed = run(call.words)
                now = state(root)
                changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
                outcomes.append(judged(call, code, printed.replace(str(root) + os.sep, ""), changed))
                if changed:
                    restore(root, pristine, changed)
        assert {path.name for path in root.parent.iterdir()} == {root.name, pristine.name}
    result = summary(outcomes)
    for outcome in result["faults"]:
        print(json.dumps(outcome, ensure_ascii=False), file=sys.stderr)
    print(json.dumps({**result, "carried out": len(result["carried out"]), "faults": len(result["faults"])}))
    if output is not None:
        output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
