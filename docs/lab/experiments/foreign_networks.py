"""Networks of public packages through nnU-Net's own commands, from a check to an evaluation.

    python docs/lab/experiments/foreign_networks.py --work FOLDER [-o docs/lab/results/foreign_networks.json]

A phantom dataset, the CPU, one thread. The trainer is nnU-Net's own with 2 iterations an epoch, defined below: fold 0
for one epoch and, resumed with --c, a second one; fold 1 for one epoch. The commands are nnU-Net's and this package's
entry points, called in processes that are forked from one which has imported torch, to save the time of starting.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from tqdm import tqdm

from nnunetv2_levit.any_network.settings import parse_settings
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.dataset_conversion.convert import convert
from nnunetv2_levit.files import read_json, write_json

DATASET_ID, BATCH = 27, 4
TRAINER = "TwoIterationsTrainer"
TRAINER_FILE = f"""
import os
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class {TRAINER}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
        self.num_epochs = int(os.environ["EPOCHS"])
"""
SMP_MODELS = ("Unet", "FPN", "DeepLabV3Plus")
ENCODERS = ("resnet18", "tu-convnext_atto", "tu-pvt_v2_b0")
ATTENTION_UNET = ("channels=[16,32,64,128]", "strides=[2,2,2]")
RESENC = "dynamic_network_architectures.architectures.unet:ResidualEncoderUNet"
# name, settings
NETWORKS: list[tuple[str, tuple[str, ...]]] = [
    *((f"smp:{model}/{encoder}", ()) for model in SMP_MODELS for encoder in ENCODERS),
    ("smp:DeepLabV3Plus/tu-mobilevit_xxs", ()),  # a transformer encoder that can be dilated
    ("monai:SwinUNETR", ("feature_size=12",)),
    ("monai:AttentionUnet", ATTENTION_UNET),
    ("monai:SegResNet", ()),
    (RESENC, ("n_blocks_per_stage=[1,2,2,2]", "n_conv_per_stage_decoder=[1,1,1]")),  # has nnU-Net's own signature
]
ENSEMBLED = ("smp:Unet/resnet18", "monai:SegResNet")


def forked(work, log: Path) -> int:
    """Exit code of ``work()`` in a process of its own, its output in a file."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with log.open("a", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        torch.set_num_threads(1)
        torch.set_num_threads = lambda _: None  # nnU-Net would take all cores
        context = multiprocessing.get_context
        multiprocessing.get_context = lambda method=None: context("fork")  # a spawned process imports for seconds
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def without_this_package() -> None:
    """As if it were not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nnunetv2_levit"]:
        del sys.modules[name]
    sys.modules["nnunetv2_levit"] = None  # type: ignore[assignment]


def command(words: list[object], log: Path, *, uninstalled: bool = False, **environment: str) -> int:
    """Exit code of a console script of nnU-Net's or this package's."""

    def call() -> None:
        os.environ.update(environment)
        sys.argv = [str(word) for word in words]
        if words[0] == "nnunetv2_levit":
            from nnunetv2_levit.cli import main

            main()
            return
        (entry,) = importlib.metadata.entry_points(group="console_scripts", name=str(words[0]))
        if uninstalled:
            without_this_package()
        entry.load()()

    return forked(call, log)


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(folder.glob("*.nii.gz"))}


def same_labels(ours: Path, theirs: Path) -> float:
    """Share of voxels with the same label in two folders of the same cases."""
    first, second = labels_of(ours), labels_of(theirs)
    assert first
    assert first.keys() == second.keys()
    return float(np.mean([np.mean(first[name] == second[name]) for name in first]))


class Runs:
    """Runs every step of one network, keeps exit codes and stops at the first that is not 0."""

    def __init__(self, work: Path, logs: Path, images: Path, truth: Path) -> None:
        self.work, self.logs, self.images, self.truth = work, logs, images, truth
        self.dataset = next((work / "preprocessed").glob("Dataset*"))

    def network(self, name: str, settings: tuple[str, ...], *, check: bool) -> dict:
        begin = time.monotonic()
        row: dict = {"network": name, "settings": list(settings), "steps": {}}
        tag = name.replace(":", "_").replace("/", "_").rpartition(".")[2]
        log = self.logs / f"{tag}.txt"
        result = self.logs / f"{tag}.json"
        flags = [flag for setting in settings for flag in ("--set", setting)]
        if check:
            planned = ["--set", "strides=[[1,1],[2,2],[2,2],[2,2]]"] if name == RESENC else []
            flags_of_check = [*flags, *planned, *(resenc_settings() if name == RESENC else [])]
            words = ["nnunetv2_levit", "check-network", name, *flags_of_check, "--skip", "cost", "--json", "-o", result]
            row["steps"]["check-network"] = command(words, log)
            if result.is_file():
                found = read_json(result, what="a check")
                row["adapter"] = found["adapter"]
                row["rules"] = {entry["rule"]: entry["status"] for entry in found["rules"]}
                row["said"] = {entry["rule"]: entry["said"] for entry in found["rules"]}
            if row["steps"]["check-network"] == 2:
                row["why"] = [line for line in log.read_text().splitlines() if line.startswith("error: ")][-1]
                return row
        before = set(self.configurations())
        words = ["nnunetv2_levit", "configure", "-d", DATASET_ID, "--network", name, *flags, "--batch", BATCH]
        row["steps"]["configure"] = command(words, log)
        (configuration,) = set(self.configurations()) - before
        row["configuration"] = configuration
        row["named"] = self.configurations()[configuration]["architecture"]["network_class_name"]
        train = ["nnUNetv2_train", DATASET_ID, configuration]
        last = ["-tr", TRAINER, "-device", "cpu", "--npz"]
        out = self.work / "predictions" / configuration
        predict = ["-d", DATASET_ID, "-i", self.images, "-tr", TRAINER, "-c", configuration, "-f", "0", "1"]
        predict += ["-device", "cpu", "-npp", "0", "-nps", "0"]
        direct = row["named"] != "nnunetv2_levit.any_network.adapter.AdaptedNetwork"
        onnx = self.work / f"{configuration}.onnx"
        model = self.results() / f"{TRAINER}__nnUNetPlans__{configuration}"
        evaluate: list[object] = ["nnUNetv2_evaluate_folder", self.truth, out / "nnunet", "-np", "1"]
        evaluate += ["-djfile", self.dataset / "dataset.json", "-pfile", self.dataset / "nnUNetPlans.json"]
        steps: list[tuple[str, list[object], dict]] = [
            ("train fold 0", [*train, 0, *last], {"EPOCHS": "1"}),
            ("resume fold 0", [*train, 0, *last, "--c"], {"EPOCHS": "2"}),
            ("train fold 1", [*train, 1, *last], {"EPOCHS": "1"}),
            ("nnUNetv2_predict", ["nnUNetv2_predict", *predict, "-o", out / "nnunet"], {"EPOCHS": "1"}),
            (
                "nnUNetv2_evaluate_folder",
                evaluate,
                {},
            ),
            ("nnunetv2_levit predict", ["nnunetv2_levit", "predict", *predict, "-o", out / "ours"], {"EPOCHS": "1"}),
            (
                "nnunetv2_levit export",
                ["nnunetv2_levit", "export", "-m", model, "-f", "0", "-o", onnx],
                {"EPOCHS": "1"},
            ),
        ]
        for step, step_words, environment in steps:
            row["steps"][step] = command(step_words, log, **environment)
        if direct:
            words = ["nnUNetv2_predict", *predict, "-o", out / "uninstalled"]
            row["steps"]["nnUNetv2_predict, this package uninstalled"] = command(
                words, log, uninstalled=True, EPOCHS="1"
            )
            row["same labels uninstalled"] = same_labels(out / "uninstalled", out / "nnunet")
        checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
        row["epochs"] = checkpoint["current_epoch"]
        row["losses"] = [float(value) for value in checkpoint["logging"]["train_losses"]]
        row["same labels as nnUNetv2_predict"] = same_labels(out / "ours", out / "nnunet")
        row["mean dice"] = read_json(out / "nnunet" / "summary.json", what="a summary")["foreground_mean"]["Dice"]
        row["seconds"] = round(time.monotonic() - begin, 1)
        return row

    def configurations(self) -> dict:
        return read_json(self.dataset / "nnUNetPlans.json", what="plans")["configurations"]

    def results(self) -> Path:
        return self.work / "results" / self.dataset.name

    def together(self, rows: list[dict]) -> dict[str, int]:
        """find_best_configuration, ensembling and a zip of two configurations."""
        log = self.logs / "together.txt"
        configurations = [row["configuration"] for row in rows if row["network"] in ENSEMBLED]
        trained = ["-tr", TRAINER, "-c", *configurations, "-f", "0", "1"]
        steps = {
            "nnUNetv2_find_best_configuration": command(
                ["nnUNetv2_find_best_configuration", DATASET_ID, *trained, "-np", "1"], log, EPOCHS="1"
            )
        }
        folders = []
        for configuration in configurations:
            folders.append(self.work / "predictions" / f"{configuration}_probabilities")
            words = ["nnUNetv2_predict", "-d", DATASET_ID, "-i", self.images, "-tr", TRAINER, "-c", configuration]
            words += ["-f", "0", "1", "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities"]
            steps[f"nnUNetv2_predict {configuration}"] = command([*words, "-o", folders[-1]], log, EPOCHS="1")
        ensembled = self.work / "predictions" / "ensemble"
        steps["nnUNetv2_ensemble"] = command(["nnUNetv2_ensemble", "-i", *folders, "-o", ensembled, "-np", "1"], log)
        archive = self.work / "model.zip"
        words = ["nnUNetv2_export_model_to_zip", "-d", DATASET_ID, "-o", archive, *trained]
        steps["nnUNetv2_export_model_to_zip"] = command(words, log, EPOCHS="1")
        installed = self.work / "installed"
        installed.mkdir()
        elsewhere = {"nnUNet_results": str(installed), "EPOCHS": "1"}
        steps["nnUNetv2_install_pretrained_model_from_zip"] = command(
            ["nnUNetv2_install_pretrained_model_from_zip", archive], log, **elsewhere
        )
        model = installed / self.dataset.name / f"{TRAINER}__nnUNetPlans__{configurations[0]}"
        out = self.work / "predictions" / "installed"
        words = ["nnunetv2_levit", "predict", "-m", model, "-i", self.images, "-f", "0", "1", "-device", "cpu"]
        steps["nnunetv2_levit predict, from the zip"] = command(
            [*words, "-npp", "0", "-nps", "0", "-o", out], log, **elsewhere
        )
        assert same_labels(out, self.work / "predictions" / configurations[0] / "ours") == 1
        assert len(labels_of(ensembled)) == len(labels_of(out))
        return steps


def resenc_settings() -> list[str]:
    """What nnU-Net plans for its network, which `configure` hands on and `check-network` has to be told."""
    given = (
        "n_stages=4",
        "features_per_stage=[32,64,128,256]",
        "kernel_sizes=[[3,3],[3,3],[3,3],[3,3]]",
        "conv_op=class:torch.nn.Conv2d",
        "norm_op=class:torch.nn.InstanceNorm2d",
        "nonlin=class:torch.nn.LeakyReLU",
        "conv_bias=true",
    )
    return [flag for setting in given for flag in ("--set", setting)]


def prepare(work: Path) -> Runs:
    """The phantom, converted, planned and preprocessed; the images of two cases to predict."""
    logs = work / "logs"
    logs.mkdir(parents=True)
    trainers = work / "trainers"
    trainers.mkdir()
    (trainers / "two_iterations.py").write_text(TRAINER_FILE)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
        (work / name).mkdir()
    os.environ |= {"nnUNet_extTrainer": str(trainers), "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    source = write_phantom(work / "source", patients=5, size=56, slices=2)
    raw = convert("acdc", source=source, dataset_id=DATASET_ID).folder
    words = ["nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-np", "1", "-npfp", "1"]
    assert command(words, logs / "plan.txt") == 0
    images, truth = work / "images", work / "truth"
    for folder in (images, truth):
        folder.mkdir()
    for file in sorted((raw / "imagesTr").iterdir())[:2]:
        (images / file.name).symlink_to(file)
        label = file.name.replace("_0000", "")
        (truth / label).symlink_to(raw / "labelsTr" / label)
    return Runs(work, logs, images, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    parser.add_argument("--networks", nargs="+", help="some of them only")
    parser.add_argument("--no-check", action="store_true", help="leave out check-network")
    options = parser.parse_args()
    import monai.networks.nets
    import nnunetv2.inference.predict_from_raw_data
    import nnunetv2.run.run_training  # noqa: F401
    import segmentation_models_pytorch as smp  # imported before the processes are forked

    runs = prepare(options.work.resolve())
    rows = []
    chosen = [row for row in NETWORKS if not options.networks or row[0] in options.networks]
    for name, settings in tqdm(chosen, desc="networks"):
        parse_settings(settings)
        try:
            rows.append(runs.network(name, settings, check=not options.no_check))
        except Exception as error:  # the other networks go on
            rows.append({"network": name, "failed": f"{type(error).__name__}: {error}"})
        tqdm.write(json.dumps(rows[-1])[:400])
        if options.output is not None:
            versions = {"torch": torch.__version__, "segmentation_models_pytorch": smp.__version__}
            versions["monai"] = monai.__version__
            write_json(options.output, {"versions": versions, "rows": rows})
    if all(any(row["network"] == name for row in rows) for name in ENSEMBLED):
        together = runs.together(rows)
        tqdm.write(json.dumps(together))
        if options.output is not None:
            write_json(options.output, {"versions": versions, "rows": rows, "together": together})


if __name__ == "__main__":
    main()
