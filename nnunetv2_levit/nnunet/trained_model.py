"""The one way to load a trained model: a model folder and folds become a network and its weights.

Prediction, export, truncation and analysis call `load_trained_model`; nothing else reads the checkpoints of a model
folder.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_levit.any_network.names import require_package
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.nnunet.checkpoints import load_checkpoint
from nnunetv2_levit.nnunet.model_folder import FoldContent, ModelFolder, check_same_network, read_model_folder
from nnunetv2_levit.nnunet.trainer_classes import find_trainer_class


@dataclass(frozen=True)
class TrainedFold:
    """What the checkpoint of one fold holds beside the state of its training."""

    name: int | str
    weights: dict[str, Tensor]
    trainer_name: str
    init_args: dict[str, Any]
    mirror_axes: tuple[int, ...] | None

    @classmethod
    def read(cls, path: Path, name: int | str, *, trust_checkpoint: bool = False) -> "TrainedFold":
        """Read one fold's checkpoint.

        Raises:
            UserError: see `load_checkpoint`.
        """
        content = load_checkpoint(path, trust=trust_checkpoint)
        axes = content.get("inference_allowed_mirroring_axes")
        return cls(name, content["network_weights"], content["trainer_name"], content["init_args"], axes)


@dataclass(frozen=True)
class TrainedModel:
    """A trained model as nnU-Net predicts with it.

    Attributes:
        folds: what was read of each fold's checkpoint, in the order in which the folds were named.
        network: in evaluation mode on the CPU, without deep supervision, with the weights of the first fold.
        trainer: the class that trained it.
        mirror_axes: spatial axes along which predictions may be mirrored; None for no mirroring.
        patch_size: (height, width), or (depth, height, width), in pixels.
        in_channels: of the image, and for the second stage of a cascade of the first's segmentation.
    """

    path: Path
    checkpoint: str
    folds: tuple[TrainedFold, ...]
    plans: PlansManager
    configuration: ConfigurationManager
    configuration_name: str
    dataset: dict[str, Any]
    labels: LabelManager
    trainer: type[nnUNetTrainer]
    network: nn.Module
    mirror_axes: tuple[int, ...] | None
    patch_size: tuple[int, ...]
    in_channels: int

    @property
    def trainer_name(self) -> str:
        """The trainer's name as the checkpoints give it."""
        return self.folds[0].trainer_name

    @property
    def preprocessed_folder(self) -> Path | None:
        """Where the preprocessed cases that it was trained on lie, if they are here."""
        if not nnUNet_preprocessed.is_set():
            return None
        folder = Path(nnUNet_preprocessed) / self.plans.dataset_name / self.configuration.data_identifier
        return folder if folder.is_dir() else None

    def require_2d(self, purpose: str) -> None:
        """Raise a UserError where this is a 3D model, which can't be used for ``purpose``."""
        if len(self.patch_size) != 2:
            raise UserError(f"{self.path} is a 3D model; only 2D configurations can be {purpose}")


def input_channels(plans: PlansManager, configuration: ConfigurationManager, dataset: dict[str, Any]) -> int:
    """Channels of what goes into a configuration's network."""
    return determine_num_input_channels(plans, configuration, dataset)


def build_network(
    trainer: type[nnUNetTrainer],
    *,
    plans: PlansManager,
    configuration: ConfigurationManager,
    in_channels: int,
    num_classes: int,
) -> nn.Module:
    """A trainer's network with random weights, built as nnU-Net builds it for prediction: without deep supervision."""
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, configuration, in_channels, num_classes, enable_deep_supervision=False)
    return build(  # as trainers written for nnU-Net before 2.7 have it
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        in_channels,
        num_classes,
        enable_deep_supervision=False,
    )


def _assembled(folder: ModelFolder, folds: tuple[TrainedFold, ...]) -> TrainedModel:
    first = folds[0]
    plans = PlansManager(folder.plans)
    configuration = plans.get_configuration(first.init_args["configuration"])
    labels = plans.get_label_manager(folder.dataset)
    in_channels = input_channels(plans, configuration, folder.dataset)
    trainer = find_trainer_class(first.trainer_name)
    try:
        network = build_network(
            trainer,
            plans=plans,
            configuration=configuration,
            in_channels=in_channels,
            num_classes=labels.num_segmentation_heads,
        )
    except ImportError:  # by which nnU-Net says no more than that it found no class
        named = configuration.network_arch_class_name
        require_package(named, name=named)
        raise
    network.load_state_dict(first.weights)
    return TrainedModel(
        path=folder.path,
        checkpoint=folder.checkpoint,
        folds=folds,
        plans=plans,
        configuration=configuration,
        configuration_name=first.init_args["configuration"],
        dataset=folder.dataset,
        labels=labels,
        trainer=trainer,
        network=network.eval(),
        mirror_axes=first.mirror_axes,
        patch_size=tuple(configuration.patch_size),
        in_channels=in_channels,
    )


def load_trained_model(
    path: str | Path,
    *,
    folds: Sequence[int | str],
    checkpoint: str = "checkpoint_final.pth",
    trust_checkpoint: bool = False,
) -> TrainedModel:
    """Load folds of a trained-model folder of any trainer that nnU-Net finds, this package's among them.

    Args:
        path: the folder ``TRAINER__PLANS__CONFIGURATION``.
        folds: numbers of folds, or "all"; one at least.
        checkpoint: the file's name in each fold's folder.
        trust_checkpoint: load checkpoints and plans that may run code (see `checkpoints` and `network_classes`).

    Raises:
        UserError: a missing file, a checkpoint that is unreadable or may run code, folds of different networks, an
            unknown trainer, or weights that don't fit.
    """
    folder = read_model_folder(Path(path), folds, checkpoint, trust_plans=trust_checkpoint)
    if not folds:
        raise UserError(f"no fold of {path} was named: give one at least (-f)")
    read = tuple(
        TrainedFold.read(folder.checkpoint_of(fold), fold, trust_checkpoint=trust_checkpoint) for fold in folder.folds
    )
    contents = [FoldContent(fold.trainer_name, fold.init_args, fold.weights) for fold in read]
    check_same_network(folder, contents, compare_plans=not trust_checkpoint)
    try:
        return _assembled(folder, read)
    except UserError:
        raise
    except Exception as error:  # as many kinds as a model folder can be broken
        raise UserError(
            f"{checkpoint} of {'fold' if len(folds) == 1 else 'the folds'} {', '.join(map(str, folds))} in {path} "
            f"can't be loaded as a trained model: {last_line(error)}"
        ) from error
