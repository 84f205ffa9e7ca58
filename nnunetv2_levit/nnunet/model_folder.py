"""Finding a trained model folder and saying in one sentence what is missing in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json
from nnunetv2_levit.inference.case_files import Case, find_cases
from nnunetv2_levit.nnunet.checkpoints import load_checkpoint
from nnunetv2_levit.nnunet.environment import dataset_folder
from nnunetv2_levit.nnunet.network_classes import check_network_classes
from nnunetv2_levit.nnunet.plans_of_training import check_plans_of_training


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

    def cases(self, source: Path, output: Path) -> list[Case]:
        """Cases of a folder of images for this model (see `find_cases`)."""
        return cases_for(PlansManager(self.plans), self.dataset, source, output)


def cases_for(plans: PlansManager, dataset: dict[str, Any], source: Path, output: Path) -> list[Case]:
    """Cases of a folder of images for a model of these plans and this dataset description."""
    return find_cases(
        source,
        output,
        file_ending=dataset["file_ending"],
        channels=len(dataset.get("channel_names", dataset.get("modality", ()))),
        channels_in=lambda files: len(plans.image_reader_writer_class().read_images([str(path) for path in files])[0]),
    )


def check_checkpoint_name(checkpoint: str) -> None:
    """Raise a UserError where the name would lead out of a fold's folder."""
    if Path(checkpoint).name != checkpoint or "\\" in checkpoint:
        raise UserError(f"{checkpoint!r} is not the name of a file in a fold's folder: give -chk without any folder")


def _check_same_network(folder: ModelFolder) -> None:
    """Raise a UserError unless the folds' checkpoints are whole, safe to load, of one network and of these plans."""
    path, folds, checkpoint = folder.path, folder.folds, folder.checkpoint
    first: dict[str, Any] | None = None
    for fold in folds:
        content = load_checkpoint(path / f"fold_{fold}" / checkpoint, mmap=True)
        described = {
            "trainer": content["trainer_name"],
            "configuration": content["init_args"]["configuration"],
            "weights": {name: tuple(value.shape) for name, value in content["network_weights"].items()},
        }
        first = first or described
        for what, value in described.items():
            if value != first[what]:
                values = "" if what == "weights" else f" ({first[what]} and {value})"
                raise UserError(
                    f"{path}: the folds {folds[0]} and {fold} are not of the same network, their {checkpoint} "
                    f"differ in the {what}{values}: predict with each alone (-f)"
                )
        check_plans_of_training(
            content["init_args"],
            plans=folder.plans,
            dataset=folder.dataset,
            folder=path,
            checkpoint=f"fold_{fold}/{checkpoint}",
        )


def check_model_folder(
    path: Path, folds: Sequence[int | str], checkpoint: str, *, trust_checkpoint: bool = False
) -> ModelFolder:
    """The model folder, with the checkpoint of every fold in place, whole and safe to load.

    With ``trust_checkpoint`` the checkpoints are not opened here and the plans may name any code.

    Raises:
        UserError: something is missing, broken or foreign; the sentence says what, and which folds are there.
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
    schemas.check_inheritance(plans, path=path / "plans.json")
    missing = [fold for fold in folds if not (path / f"fold_{fold}" / checkpoint).is_file()]
    if missing:
        trained = sorted(file.parent.name.removeprefix("fold_") for file in path.glob(f"fold_*/{checkpoint}"))
        others = sorted({file.name for fold in missing for file in path.glob(f"fold_{fold}/*.pth")})
        advice = f"choose with -f among {', '.join(trained)}" if trained else "no fold has it"
        if others:
            advice += f"; fold {missing[0]} has {', '.join(others)} (-chk)"
        raise UserError(
            f"{path} has no {checkpoint} for fold{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}: {advice}"
        )
    folder = ModelFolder(path, tuple(folds), checkpoint, plans, dataset)
    if not trust_checkpoint:
        check_network_classes(plans, path / "plans.json")
        _check_same_network(folder)
    return folder
