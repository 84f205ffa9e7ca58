"""``nnunetv2_levit train``: nnUNetv2_train, after a look at what can be known to be wrong before it starts."""

import argparse
import contextlib
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit.cli.arguments import plain_sentences
from nnunetv2_levit.cli.passed_through import run_program
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.environment import dataset_folder, nnunet_folder

PROGRAM = "nnUNetv2_train"
TRUST_FLAG = "--trust-checkpoint"
FOLDS = 5  # that nnU-Net makes where there is no splits_final.json


def _parser() -> argparse.ArgumentParser:
    """The flags of nnUNetv2_train, to read them before it does; what it does not know, nnU-Net refuses itself."""
    parser = argparse.ArgumentParser(prog="nnunetv2_levit train", add_help=False)
    for name in ("dataset", "configuration", "fold"):
        parser.add_argument(name)
    parser.add_argument("-tr", default="nnUNetTrainer")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-pretrained_weights", type=Path)
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("-device", default="cuda")
    for flag in ("--npz", "--c", "--val", "--val_best", "--disable_checkpointing"):
        parser.add_argument(flag, action="store_true")
    return parser


def _parsed(arguments: Sequence[str]) -> argparse.Namespace | None:
    """The flags that are known here; None where only help is asked for."""
    return None if {"-h", "--help"} & set(arguments) else _parser().parse_known_args(arguments)[0]


def _check_flags(arguments: argparse.Namespace) -> None:
    exclusive = {
        ("--c", "--val"): "either go on training or only validate",
        ("--c", "-pretrained_weights"): "a training that goes on has its own weights",
        ("--val", "-pretrained_weights"): "a validation takes the trained weights",
        ("--val_best", "--disable_checkpointing"): "the best checkpoint must be written to be validated",
    }
    for (first, second), reason in exclusive.items():
        if all(getattr(arguments, flag.lstrip("-")) for flag in (first, second)):
            raise UserError(f"{first} and {second} exclude each other: {reason}")
    if arguments.fold != "all" and not (arguments.fold.isascii() and arguments.fold.isdecimal()):
        raise UserError(f"the fold {arguments.fold!r} is neither a number (0, 1, …) nor 'all'")


def _check_device(device: str, gpus: int) -> None:
    import torch

    if device not in ("cuda", "cpu", "mps"):
        raise UserError(
            f"there is no device {device!r}: give cuda, cpu or mps with -device (a GPU by CUDA_VISIBLE_DEVICES)"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device here: use -device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("torch finds no MPS device here: use -device cpu")
    present = torch.cuda.device_count() if device == "cuda" else 1
    if not 1 <= gpus <= present:
        raise UserError(f"-num_gpus {gpus} is not 1 to {present}, the number of devices here for -device {device}")


def _trainer(name: str) -> type:
    """The trainer's class.

    Raises:
        UserError: there is none of that name, or it is a second name of a training.
    """
    from nnunetv2_levit.trainers import FAMILIES, trainer_class
    from nnunetv2_levit.trainers.naming import check_canonical, family_of

    if family_of(name) is not None:
        check_canonical(name)
        return trainer_class(name)

    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net says where it looks; it says so again when it starts
            return recursive_find_trainer_class_by_name(name)
    except Exception as error:  # a foreign trainer's module may raise anything
        if "Could not find requested nnunet trainer" not in str(error):
            raise UserError(f"the trainer {name} can't be imported ({type(error).__name__}: {error})") from error
    near = difflib.get_close_matches(name.split("_")[0], [f"{family}Trainer" for family in FAMILIES], n=1)
    hint = f"did you mean {near[0]}?" if near else "`nnunetv2_levit trainers` lists those of this package"
    raise UserError(f"there is no trainer {name}, neither nnU-Net's nor this package's: {hint}")


@dataclass(frozen=True)
class _Data:
    """A preprocessed dataset's folder and what its plans say of one configuration."""

    folder: Path
    plans: dict[str, Any]
    patch_size: Sequence[int]
    cases: Path


def _data(arguments: argparse.Namespace) -> _Data:
    """The preprocessed data that a training reads.

    Raises:
        UserError: the dataset, its plans, the configuration or its preprocessed cases are missing.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    advice = f"run `nnunetv2_levit plan -d {arguments.dataset}` first"
    folder = dataset_folder("nnUNet_preprocessed", arguments.dataset, advice=advice)
    plans_file = folder / f"{arguments.p}.json"
    if not plans_file.is_file():
        present = ", ".join(sorted(path.stem for path in folder.glob("*Plans*.json"))) or "none"
        raise UserError(f"there are no plans {plans_file} (-p): present are {present}; {advice}")
    plans = read_json(plans_file, what="a plans file")
    read_json(folder / "dataset.json", what="the dataset's description")
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict) or "plans_name" not in plans:
        raise UserError(f"{plans_file} is not a plans file: plan the dataset anew")
    if arguments.configuration not in configurations:
        raise UserError(
            f"{plans_file} has no configuration {arguments.configuration!r}: choose one of {', '.join(configurations)}"
        )
    try:
        configuration = PlansManager(plans).get_configuration(arguments.configuration)
        cases, patch_size = folder / configuration.data_identifier, configuration.patch_size
    except Exception as error:  # plans may be edited by hand
        raise UserError(
            f"the configuration {arguments.configuration} in {plans_file} can't be read "
            f"({type(error).__name__}: {error})"
        ) from error
    if not cases.is_dir() or not any(cases.iterdir()):
        raise UserError(
            f"there are no preprocessed cases in {cases}: run `nnunetv2_levit plan -d {arguments.dataset} "
            f"-c {arguments.configuration}` first"
        )
    return _Data(folder, plans, patch_size, cases)


def _check_fold(fold: str, data: _Data) -> None:
    if fold == "all":
        return
    path = data.folder / "splits_final.json"
    if path.is_file():
        splits = read_json(
            path, what="the folds of this dataset (remove it if it is broken: nnU-Net makes its own anew)"
        )
        if not isinstance(splits, list):
            raise UserError(f"{path} holds no list of folds: remove it, and nnU-Net makes its own")
        number = len(splits)
    else:
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        number = FOLDS
        cases = len(infer_dataset_class(str(data.cases)).get_identifiers(str(data.cases)))
        if cases < FOLDS:
            raise UserError(
                f"{data.folder} has {cases} cases, too few for {FOLDS} folds: train on all of them (fold all), or "
                f"write your own {path.name}"
            )
    if int(fold) >= number:
        raise UserError(f"there is no fold {int(fold)}: {data.folder.name} has the folds 0 to {number - 1}, and all")


def _check_network(arguments: argparse.Namespace, data: _Data, trainer: type) -> None:
    """Refuse a network of the plans whose package is missing, where the trainer trains the network of the plans."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_levit.any_network.names import require_package
    from nnunetv2_levit.network_architectures import REGISTRY
    from nnunetv2_levit.nnunet.network_configurations import network_of_architecture
    from nnunetv2_levit.trainers import HybridTrainer
    from nnunetv2_levit.trainers.plans_network import PlansNetworkTrainer

    configuration = PlansManager(data.plans).get_configuration(arguments.configuration)
    if issubclass(trainer, HybridTrainer) and not issubclass(trainer, PlansNetworkTrainer):
        trainer.check_network_of_plans(configuration)
        return
    builds = getattr(trainer, "build_network_architecture", None)
    if builds is not nnUNetTrainer.build_network_architecture and not issubclass(trainer, PlansNetworkTrainer):
        return
    architecture = configuration.configuration["architecture"]
    adapted = network_of_architecture(architecture)
    named = architecture["network_class_name"] if adapted is None else adapted.target
    if named not in REGISTRY:
        require_package(named, name=named)


def _check_checkpoints(arguments: argparse.Namespace, data: _Data, trainer: type) -> None:
    """Refuse what nnU-Net would load and what is missing, broken or may run code."""
    from nnunetv2_levit.nnunet.checkpoints import RESUMABLE, TRAINED, check_checkpoint, trusted_by_environment
    from nnunetv2_levit.trainers import HybridTrainer

    trust = trusted_by_environment()
    fold = arguments.fold if arguments.fold == "all" else int(arguments.fold)
    model = f"{trainer.__name__}__{data.plans['plans_name']}__{arguments.configuration}"
    folder = nnunet_folder("nnUNet_results") / data.folder.name / model / f"fold_{fold}"
    final, latest, best = (folder / f"checkpoint_{name}.pth" for name in ("final", "latest", "best"))
    needed: list[Path] = []
    if arguments.c:
        needed += [path for path in (final, latest, best) if path.is_file()][:1]
    if arguments.val:
        if not final.is_file():
            raise UserError(f"there is nothing to validate, as there is no {final}: train first (or go on with --c)")
        needed.append(final)
        if arguments.val_best:
            needed.append(best)
    for path in needed:
        check_checkpoint(path, trust=trust, keys=RESUMABLE)
    if arguments.pretrained_weights is not None:
        keys = TRAINED if issubclass(trainer, HybridTrainer) else ("network_weights",)
        check_checkpoint(arguments.pretrained_weights, trust=trust, keys=keys)


@plain_sentences()
def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments for nnUNetv2_train, without our flag, once nothing is known to be wrong with them.

    Raises:
        UserError: the training can't be carried out; the sentence says what to mend.
    """
    handed_on = [word for word in arguments if word != TRUST_FLAG]
    if len(handed_on) < len(arguments):
        from nnunetv2_levit.nnunet.checkpoints import trust_this_process

        trust_this_process()
    parsed = _parsed(handed_on)
    if parsed is None:
        return handed_on
    _check_flags(parsed)
    nnunet_folder("nnUNet_results")
    data = _data(parsed)
    _check_fold(parsed.fold, data)
    trainer = _trainer(parsed.tr)
    _check_device(parsed.device, parsed.num_gpus)

    from nnunetv2_levit.trainers import HybridTrainer

    if issubclass(trainer, HybridTrainer) and trainer.only_2d and len(data.patch_size) != 2:
        raise UserError(
            f"{parsed.tr} trains 2D networks and the configuration {parsed.configuration} is 3D: use 2d, or one made "
            "from it by `nnunetv2_levit configure`"
        )
    _check_network(parsed, data, trainer)
    _check_checkpoints(parsed, data, trainer)
    return handed_on


def run(arguments: Sequence[str]) -> None:
    from nnunetv2_levit.nnunet.environment import set_up_process

    set_up_process()
    checked = checked_arguments(arguments)
    # torch and nnU-Net come with it, so not before the arguments are known to be good
    from nnunetv2_levit.nnunet.replacements import install
    from nnunetv2_levit.trainers.stop_signals import passed_on

    install()
    parsed = _parsed(checked)
    with passed_on() if parsed is not None and parsed.num_gpus > 1 else contextlib.nullcontext():
        run_program(PROGRAM, checked)
