"""What must be there before a study starts: trainers, plans, folds, data, devices and room. Nothing is written."""

import contextlib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.environment import dataset_folder, nnunet_folder, set_up_process
from nnunetv2_levit.study.file import Study
from nnunetv2_levit.study.jobs import Model, models_of
from nnunetv2_levit.study.state import State, description_of, test_cases

BYTES_OF_A_PARAMETER = 12
"""In a checkpoint: the weight and up to two moments of the optimizer, in fp32."""
CHECKPOINTS_AT_ONCE = 3
"""The best, the latest or final one, and one being written."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is trained; None where nnU-Net can't say without data."""

    parameters: int | None
    epochs: int | None


def _plans(study: Study) -> dict[str, Any]:
    folder = dataset_folder("nnUNet_preprocessed", study.dataset, advice="plan and preprocess the dataset first")
    path = folder / f"{study.plans}.json"
    if not path.is_file():
        raise UserError(f"there are no plans {path}: run `nnUNetv2_plan_and_preprocess -d {study.dataset}` first")
    plans = read_json(path, what="nnU-Net's plans", schema=schemas.PLANS_TO_CONFIGURE)
    configurations = plans["configurations"]
    for name in study.configurations:
        if name not in configurations:
            raise UserError(f"{path} has no configuration {name}: choose among {', '.join(configurations)}")
    return plans


def _splits(study: Study) -> list[dict[str, list[str]]]:
    """The splits, or those that nnU-Net will make."""
    folder = dataset_folder("nnUNet_preprocessed", study.dataset, advice="preprocess the dataset first")
    path = folder / "splits_final.json"
    if path.is_file():
        return read_json(path, what="nnU-Net's splits", schema=schemas.SPLITS)
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    labels = folder / "gt_segmentations"
    ending = description_of(study)["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in labels.glob(f"*{ending}")) if labels.is_dir() else []
    if len(cases) < 5:
        raise UserError(f"{labels} holds the labels of {len(cases)} cases, too few for nnU-Net's five folds")
    return generate_crossval_split(cases, seed=12345, n_splits=5)


def write_splits(study: Study) -> None:
    """Write nnU-Net's own splits where there are none yet: trainings that start together would write over each other.

    Raises:
        UserError: see `check`.
    """
    from nnunetv2_levit.files import write_json

    folder = dataset_folder("nnUNet_preprocessed", study.dataset, advice="preprocess the dataset first")
    if not (folder / "splits_final.json").is_file():
        write_json(folder / "splits_final.json", _splits(study), indent=4)


def _trainer(study: Study, name: str) -> Any:
    """The trainer's class."""
    from nnunetv2_levit.trainers import naming

    if naming.family_of(name) is not None:
        naming.check_canonical(name)
        return naming.trainer_class(name)
    from nnunetv2_levit.nnunet.trainer_classes import find_trainer_class

    try:
        return find_trainer_class(name)
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(
            f"{study.file}: nnU-Net finds no trainer {name}: check [study] trainers (`nnunetv2_levit trainers` lists "
            "ours; folders with others belong into the environment variable nnUNet_extTrainer)"
        ) from None


def _data(study: Study, configuration: str) -> None:
    """The preprocessed cases of a configuration."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = dataset_folder("nnUNet_preprocessed", study.dataset, advice="preprocess the dataset first")
    plans = PlansManager(_plans(study))
    data = folder / plans.get_configuration(configuration).data_identifier
    if not data.is_dir() or not any(data.iterdir()):
        raise UserError(
            f"{data} holds no preprocessed cases of the configuration {configuration}: run "
            f"`nnUNetv2_preprocess -d {study.dataset} -plans_name {study.plans} -c {configuration}`"
        )


def _facts(study: Study, model: Model) -> ModelFacts:
    """Count the parameters of a network that is built for this (on no device), and ask the trainer for its epochs."""
    import torch
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    trainer = _trainer(study, model.trainer)
    description = description_of(study)
    plans = PlansManager(_plans(study))
    configuration = plans.get_configuration(model.configuration)
    if getattr(trainer, "only_2d", False) and len(configuration.patch_size) != 2:
        raise UserError(
            f"{study.file}: {model.trainer} trains 2D networks and {model.configuration} is a 3D configuration: choose "
            "a 2D one"
        )
    arguments = (
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, description),
        plans.get_label_manager(description).num_segmentation_heads,
        False,
    )
    parameters = None
    for device in ("meta", "cpu"):  # not every network can be built without memory
        try:
            with torch.device(device), contextlib.redirect_stdout(io.StringIO()):
                network = trainer.build_network_architecture(*arguments)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            break
        except Exception:
            continue
    return ModelFacts(parameters, _epochs(trainer))


def _epochs(trainer: Any) -> int | None:
    recipe = getattr(trainer, "recipe", None)
    if recipe is not None:
        return getattr(trainer, "num_epochs_override", None) or recipe.num_epochs
    return None  # nnU-Net's trainers set it when they are made, which makes folders too


def _room(study: Study, facts: dict[Model, ModelFacts], states: dict[str, State]) -> tuple[int, int]:
    """Bytes that the checkpoints still to come need, and bytes that are free."""
    to_come = [state.job for state in states.values() if state.job.kind == "train" and state.made is None]
    needed = sum(_checkpoint_bytes(facts[job.model]) for job in to_come)
    place = study.folder
    while not place.exists():
        place = place.parent
    return needed, shutil.disk_usage(place).free


def _checkpoint_bytes(facts: ModelFacts) -> int:
    return CHECKPOINTS_AT_ONCE * BYTES_OF_A_PARAMETER * (facts.parameters or 0)


def _writable(folder: Path) -> None:
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} can't be written: choose another [study] folder, or mend its permissions")


def _devices(study: Study) -> None:
    if study.executor != "local":
        return
    import torch

    for device in set(study.local.devices):
        kind, _, number = device.partition(":")
        if kind == "cuda" and (count := torch.cuda.device_count()) <= int(number or 0):
            raise UserError(
                f"{study.file}: [local] devices names {device}, and this machine has {count} CUDA devices: name those "
                "that it has, or cpu"
            )
        if kind == "mps" and not torch.backends.mps.is_available():
            raise UserError(f"{study.file}: [local] devices names mps, which torch does not find on this machine")


def check(study: Study, states: dict[str, State] | None = None) -> dict[Model, ModelFacts]:
    """Check everything that a study needs and return what is known of its models.

    Raises:
        UserError: something is missing or impossible; the first such thing, in one sentence.
    """
    set_up_process()
    nnunet_folder("nnUNet_preprocessed")
    _plans(study)
    splits = _splits(study)
    beyond = [fold for fold in study.folds if fold >= len(splits)]
    if beyond:
        raise UserError(
            f"{study.file}: [study] folds names fold {beyond[0]}, and {study.dataset} is split into {len(splits)}: "
            f"folds are 0 to {len(splits) - 1}"
        )
    for configuration in study.configurations:
        _data(study, configuration)
    if study.test is not None:
        cases, ending = test_cases(study)
        if study.test.labels is not None:
            _test_labels(study, study.test.labels, cases, ending)
        if len(cases) < study.prediction.parts:
            raise UserError(f"{study.file}: [prediction] parts is {study.prediction.parts}, for {len(cases)} images")
    _names(study)
    _measures(study)
    _devices(study)
    _writable(study.folder)
    for trainer in study.trainers:
        _trainer(study, trainer)
    facts = {model: _facts(study, model) for model in models_of(study)}
    if states is not None:
        needed, free = _room(study, facts, states)
        if needed > free:
            raise UserError(
                f"the checkpoints of this study need about {needed / 1e9:.1f} GB and {study.folder} has "
                f"{free / 1e9:.1f} GB free: choose another [study] folder, or make room"
            )
    return facts


def _test_labels(study: Study, labels: Path, cases: list[str], ending: str) -> None:
    if not labels.is_dir():
        raise UserError(f"{study.file}: [test] labels names {labels}, which is not a folder")
    present = {path.name.removesuffix(ending) for path in labels.iterdir() if path.name.endswith(ending)}
    if missing := [case for case in cases if case not in present]:
        raise UserError(f"{labels} lacks the labels of {len(missing)} test images, such as {missing[0]}{ending}")
    if extra := sorted(present - set(cases)):
        raise UserError(f"{labels} has labels without a test image, such as {extra[0]}{ending}")


def _names(study: Study) -> None:
    for trainer in study.names:
        if trainer not in study.trainers:
            raise UserError(
                f"{study.file}: [names] names {trainer}, which is not one of the trainers: {', '.join(study.trainers)}"
            )
    shown = [study.names.get(trainer, trainer) for trainer in study.trainers]
    if repeated := [name for name in shown if shown.count(name) > 1]:
        raise UserError(f"{study.file}: [names] calls two trainers {repeated[0]!r}: give each a name of its own")


def _measures(study: Study) -> None:
    from nnunetv2_levit.evaluation.label_files import patients_of
    from nnunetv2_levit.evaluation.paper_rows import tables_of
    from nnunetv2_levit.evaluation.protocols import PROTOCOLS

    asked = study.evaluation
    if asked.protocol is not None and asked.protocol not in PROTOCOLS:
        raise UserError(f"{study.file}: there is no protocol {asked.protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    needed = asked.protocol is not None and PROTOCOLS[asked.protocol].needs_probabilities
    if needed and (study.test is None or not study.prediction.save_probabilities):
        raise UserError(
            f"{study.file}: the protocol {asked.protocol} needs probabilities: add [test] images and labels, and "
            "[prediction] save_probabilities = true"
        )
    if asked.paper_dataset is not None and not tables_of(asked.paper_dataset):
        raise UserError(f"{study.file}: no transcribed paper has a table about {asked.paper_dataset}")
    if asked.patient_pattern is not None:
        cases = [case for split in _splits(study)[:1] for case in split["val"]]
        patients_of(cases, None, asked.patient_pattern)
