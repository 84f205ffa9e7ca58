"""Settings with which a study's results were made. Jobs are found from their files, so that a result which is there is
not made anew when the study's file says something else: such a change is refused.
"""

from typing import Any

from nnunetv2_levit import schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.study.file import Study

SETTINGS = {
    "prediction": ("step_size", "mirroring"),
    "evaluation": ("tolerance", "protocol", "patient_pattern"),
}
"""By table: the keys that change what is in a result."""
FOLDERS = {"prediction": "predictions", "evaluation": "evaluations"}
FILE = "settings.json"


def _settings(study: Study, table: str) -> dict[str, Any]:
    return {key: getattr(getattr(study, table), key) for key in SETTINGS[table]}


def check_settings(study: Study) -> None:
    """Check that the file says of results that are there what it said when they were made.

    Raises:
        UserError: it does not; the sentence names key and values.
    """
    file = study.folder / FILE
    if not file.is_file():
        return
    kept = read_json(file, what="the settings of a study", schema=schemas.STUDY_SETTINGS)
    for table, folder in FOLDERS.items():
        place = study.folder / folder
        if not place.is_dir() or not any(place.iterdir()):
            continue
        for key, value in _settings(study, table).items():
            before = kept[table].get(key)
            if before != value:
                raise UserError(
                    f"{study.file}: [{table}] {key} is {value!r} and was {before!r} when results were made: take it "
                    f"back, or remove {place}, so that they are made anew"
                )


def keep_settings(study: Study) -> None:
    """Write down the settings with which results are made from now on."""
    write_json(study.folder / FILE, {table: _settings(study, table) for table in FOLDERS})
