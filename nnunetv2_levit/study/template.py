"""A commented study to start from, filled in with what is known of a dataset."""

from importlib.resources import files
from pathlib import Path

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, write_text
from nnunetv2_levit.nnunet.environment import dataset_folder


def write_template(dataset: str | int, output: Path) -> Path:
    """Write ``output``, a study of the dataset's 2D configuration (or its first) on all its folds.

    Raises:
        UserError: no such dataset or no plans, or the file exists.
    """
    if output.exists():
        raise UserError(f"{output} exists already: give another file with -o, or remove it")
    advice = "plan and preprocess it first"
    folder = dataset_folder("nnUNet_preprocessed", dataset, advice=advice)
    found = sorted(path.stem for path in folder.glob("*lans*.json"))
    if not found:
        raise UserError(f"{folder} holds no plans: {advice}")
    plans = "nnUNetPlans" if "nnUNetPlans" in found else found[0]
    configurations = list(
        read_json(folder / f"{plans}.json", what="nnU-Net's plans", schema=schemas.PLANS_TO_CONFIGURE)["configurations"]
    )
    splits = folder / "splits_final.json"
    folds = len(read_json(splits, what="nnU-Net's splits", schema=schemas.SPLITS)) if splits.is_file() else 5
    values = {
        "NAME": folder.name.partition("_")[2] or folder.name,
        "DATASET": folder.name,
        "PLANS": plans,
        "CONFIGURATIONS": f'"{"2d" if "2d" in configurations else configurations[0]}"',
        "ALL_CONFIGURATIONS": ", ".join(configurations),
        "FOLDS": ", ".join(str(fold) for fold in range(folds)),
    }
    text = files("nnunetv2_levit.study").joinpath("template.toml").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    write_text(output, text)
    return output
