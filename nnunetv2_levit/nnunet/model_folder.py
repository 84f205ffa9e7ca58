"""Finding a trained model folder and saying in one sentence what is missing in it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunetv2_levit import json_checks, schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.nnunet.checkpoints import load_checkpoint
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.nnunet.network_classes import check_network_classes
from nnunetv2_levit.nnunet.plans_of_training import check_plans_of_training

FINAL_CHECKPOINT = "checkpoint_final.pth"


def trained_model_folder(*, dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """``nnUNet_results/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION`` for a dataset's id or full name.

    Raises:
        UserError: no such dataset, or several with that id, or no such model.
    """
    trained = dataset_folder("nnUNet_results", dataset, advice="check -d, or give a model folder with -m")
    folder = trained / f"{trainer}__{plans}__{configuration}"
    if not folder.is_dir():
        present = sorted(path.name for path in trained.iterdir() if path.is_dir() and path.name.count("__") == 2)
        raise UserError(
            f"there is no trained model {folder}: check -tr, -p and -c; trained are {', '.join(present) or 'none'}"
        )
    return folder


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds everything that its ``folds`` need."""

    path: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    plans: dict[str, Any]
    dataset: dict[str, Any]

    def reader(self) -> Any:
        """nnU-Net's reader for the images that the model was planned for."""
        return PlansManager(self.plans).image_reader_writer_class()

    def checkpoint_of(self, fold: int | str) -> Path:
        """The checkpoint of one fold."""
        return self.path / f"fold_{fold}" / self.checkpoint


def checkpoint_flags(checkpoint: str) -> list[str]:
    """``-chk`` in a command that is printed, where the checkpoint is not the default one."""
    return [] if checkpoint == FINAL_CHECKPOINT else ["-chk", checkpoint]


def check_checkpoint_name(checkpoint: str) -> None:
    """Raise a UserError where the name would lead out of a fold's folder."""
    if Path(checkpoint).name != checkpoint or "\\" in checkpoint:
        raise UserError(f"{checkpoint!r} is not the name of a file in a fold's folder: give -chk without any folder")


@dataclass(frozen=True)
class FoldContent:
    """What of a fold's checkpoint says which network it is of, and how that was trained."""

    trainer_name: str
    init_args: dict[str, Any]
    weights: dict[str, Tensor]


def check_same_network(folder: ModelFolder, contents: Iterable[FoldContent], *, compare_plans: bool = True) -> None:
    """Check that the folds' checkpoints, in turn, are of one network and, with ``compare_plans``, of these plans.

    Raises:
        UserError: they are not; the sentence names the folds or files and in what they differ.
    """
    first: dict[str, Any] | None = None
    for fold, content in zip(folder.folds, contents, strict=True):
        described = {
            "trainer": content.trainer_name,
            "configuration": content.init_args["configuration"],
            "weights": {name: tuple(value.shape) for name, value in content.weights.items()},
        }
        first = first or described
        for what, value in described.items():
            if value != first[what]:
                values = "" if what == "weights" else f" ({first[what]} and {value})"
                raise UserError(
                    f"{folder.path}: the folds {folder.folds[0]} and {fold} are not of the same network, their "
                    f"{folder.checkpoint} differ in the {what}{values}: predict with each alone (-f)"
                )
        if compare_plans:
            check_plans_of_training(
                content.init_args,
                plans=folder.plans,
                dataset=folder.dataset,
                folder=folder.path,
                checkpoint=f"fold_{fold}/{folder.checkpoint}",
            )


def _contents(folder: ModelFolder) -> Iterator[FoldContent]:
    """What each fold's checkpoint says, one after another, the weights left in the file."""
    for fold in folder.folds:
        content = load_checkpoint(folder.checkpoint_of(fold), mmap=True)
        yield FoldContent(content["trainer_name"], content["init_args"], content["network_weights"])


def check_model_folder(
    path: Path, folds: Sequence[int | str], checkpoint: str, *, trust_checkpoint: bool = False
) -> ModelFolder:
    """The model folder, with the checkpoint of every fold in place, whole and safe to load.

    With ``trust_checkpoint`` the checkpoints are not opened here and the plans may name any code.

    Raises:
        UserError: something is missing, broken or foreign; the sentence says what, and which folds are there.
    """
    folder = read_model_folder(path, folds, checkpoint, trust_plans=trust_checkpoint)
    if not trust_checkpoint:
        check_same_network(folder, _contents(folder))
    return folder


def read_model_folder(
    path: Path, folds: Sequence[int | str], checkpoint: str, *, trust_plans: bool = False
) -> ModelFolder:
    """The model folder, with a checkpoint for every fold (not opened here).

    Raises:
        UserError: something is missing, the plans or the dataset's description are broken, or the plans name code.
    """
    if not path.is_dir():
        raise UserError(
            f"{path} is not a model folder, but a file" if path.exists() else f"there is no model folder {path}"
        )
    check_checkpoint_name(checkpoint)
    if len(set(folds)) != len(folds):
        raise UserError(f"a fold is named twice in {', '.join(map(str, folds))}: give each once (-f)")
    kinds = {"plans.json": schemas.PLANS_OF_MODEL, "dataset.json": schemas.DATASET_WITH_IMAGES}
    plans, dataset = (
        read_json(path / name, what="part of a trained nnU-Net model", schema=kind) for name, kind in kinds.items()
    )
    json_checks.check_inheritance(plans, path=path / "plans.json")
    missing = [fold for fold in folds if not (path / f"fold_{fold}" / checkpoint).is_file()]
    if missing:
        trained = sorted(file.parent.name.removeprefix("fold_") for file in path.glob(f"fold_*/{checkpoint}"))
        others = sorted({file.name for fold in missing for file in path.glob(f"fold_{fold}/*.pth")})
        advice = f"choose with -f among {', '.join(trained)}" if trained else "no fold has it"
        if others:
            advice += f"; fold {missing[0]} has {', '.join(others)} (-chk)"
        which = "fold" if len(missing) == 1 else "folds"
        raise UserError(f"{path} has no {checkpoint} for {which} {', '.join(map(str, missing))}: {advice}")
    if not trust_plans:
        check_network_classes(plans, path / "plans.json")
    return ModelFolder(path, tuple(folds), checkpoint, plans, dataset)
