"""What every kind of JSON file that is read must look like, as JSON Schemas (`json_checks` checks them).

A schema says what the package reads of a file, not all that nnU-Net writes: further keys are allowed everywhere. Beside
the standard's own words, ``description`` says what a value should be, ``remedy`` how to mend the file, and ``finite``
that no number in it may be NaN or infinite, wherever it stands.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def _text(description: str = "a text") -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": description}


def _whole(description: str, **limits: int) -> dict[str, Any]:
    return {"type": "integer", "description": description, **limits}


def _real(description: str = "a finite number", **limits: float) -> dict[str, Any]:
    return {"type": "number", "description": description, **limits}


def _list(items: Schema, description: str, **limits: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description, **limits}


def _by_name(values: Schema, description: str, **limits: Any) -> dict[str, Any]:
    """An object whose names are free."""
    return {"type": "object", "additionalProperties": values, "description": description, **limits}


def _record(description: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict:
    """An object of known names; others are allowed."""
    return {
        "type": "object",
        "description": description,
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def _or_null(schema: Schema) -> dict[str, Any]:
    """The same or null."""
    types = schema["type"]
    return {**schema, "type": [*([types] if isinstance(types, str) else types), "null"]}


# nnU-Net writes segmentations in 8 or 16 bits without sign, and takes int() of labels, so that digits in quotes are
# labels too
ONE_LABEL = [{"type": "integer", "minimum": 0, "maximum": 2**16 - 1}, {"type": "string", "pattern": "^[0-9]{1,4}$"}]
LABEL = {
    "description": "a label (a whole number from 0), or a list of labels (a region)",
    "anyOf": [*ONE_LABEL, {"type": "array", "minItems": 1, "items": {"anyOf": ONE_LABEL}}],
}
CHANNELS = _by_name(_text("the name of a channel"), "an object of channel names", minProperties=1)
DATASET = {
    **_record(
        "nnU-Net's description of a dataset",
        {"labels": _by_name(LABEL, "an object of labels by structure", minProperties=1)},
        {
            "channel_names": CHANNELS,
            "modality": CHANNELS,
            "file_ending": {**_text("a file ending such as .nii.gz"), "pattern": r"^\.[^/\\]+$"},
            "name": {"type": "string", "description": "a text"},
            "overwrite_image_reader_writer": _or_null(_text("the name of a reader")),
            "regions_class_order": _list(_whole("a label", minimum=0), "a list of labels"),
            "dataset": {"type": "object", "description": "an object of files by case"},
        },
    ),
    "remedy": "mend it as in nnU-Net's documentation of the dataset format, or convert the dataset anew",
}
DATASET["properties"]["labels"]["properties"] = {
    "background": {"enum": [0, "0"], "description": "0, as nnU-Net wants it"},
    "ignore": _whole("a label (a whole number from 1)", minimum=1, maximum=2**16 - 1),
}
# what reading images and naming channels needs
DATASET_WITH_IMAGES = {
    **DATASET,
    "required": ["labels", "file_ending"],
    "anyOf": [{"required": ["channel_names"]}, {"required": ["modality"]}],
    "lacking": "'channel_names'",
}

SIDES = _list(_whole("a whole number above 0", minimum=1), "a list of two or three whole numbers above 0",
              minItems=2, maxItems=3)  # fmt: skip
SPACING = _list(_real("a number above 0", exclusiveMinimum=0), "a list of two or three numbers above 0",
                minItems=2, maxItems=3)  # fmt: skip
AXES = _list(_whole("an axis: 0, 1 or 2", minimum=0, maximum=2), "a list of the axes 0, 1 and 2 in some order",
             minItems=3, maxItems=3, uniqueItems=True)  # fmt: skip
STAGE = {"type": ["string", "array", "null"], "items": _text("the name of a configuration"),
         "description": "the name of a configuration"}  # fmt: skip
CONFIGURATION = _record(
    "a configuration (an object)",
    {},
    {
        "inherits_from": _text("the name of a configuration"),
        "data_identifier": _text(),
        "preprocessor_name": _text(),
        "batch_size": _whole("a whole number above 0", minimum=1),
        "patch_size": SIDES,
        "spacing": SPACING,
        "normalization_schemes": _list(_text("the name of a scheme"), "a list of names of schemes", minItems=1),
        "use_mask_for_norm": _list({"type": "boolean", "description": "true or false"}, "a list of true or false"),
        "architecture": _record(
            "an object with network_class_name and arch_kwargs",
            {},
            {
                "network_class_name": _text("the name of a class"),
                "arch_kwargs": _record(
                    "an object of options", {}, {"strides": _list(SIDES, "a list of strides", minItems=1)}
                ),
                "_kw_requires_import": _list(_text("the name of an option"), "a list of names of options"),
            },
        ),
        "next_stage": STAGE,
        "previous_stage": STAGE,
        "batch_dice": {"type": "boolean", "description": "true or false"},
    },
)
PLANS = {
    **_record(
        "nnU-Net's plans",
        {"dataset_name": _text("the name of a dataset")},
        {
            "plans_name": _text("the name of the plans"),
            "configurations": _by_name(CONFIGURATION, "an object of configurations by name", minProperties=1),
            "image_reader_writer": _text("the name of a reader"),
            "transpose_forward": AXES,
            "transpose_backward": AXES,
            "foreground_intensity_properties_per_channel": _by_name(
                # NaN stands there genuinely: of a channel in which no case has any foreground
                _by_name({"type": "any number", "description": "a number"}, "an object of numbers by name"),
                "an object of intensities by channel",
            ),
        },
    ),
    "remedy": "plan the dataset anew, or restore the file",
}
PLANS_TO_CONFIGURE = {**PLANS, "required": ["configurations"]}
PLANS_OF_MODEL = {**PLANS, "required": ["dataset_name", "configurations"]}

CASES = _list(_text("the name of a case"), "a list of names of cases")
SPLITS = {
    **_list(
        _record("a fold (an object with train and val)", {"train": CASES, "val": CASES}),
        "nnU-Net's folds: a list of objects with train and val",
    ),
    "remedy": "convert the dataset anew, or remove the file, so that nnU-Net makes its own folds",
}

CONVERSION = {
    **_record(
        "a converter's summary",
        {
            "cases": _by_name(
                _record("an object with the case's patient", {"patient": _text("the name of a patient")}),
                "an object of facts by case",
                minProperties=1,
            )
        },
        {"notes": _list({"type": "string", "description": "a text"}, "a list of texts")},
    ),
    "finite": True,
    "remedy": "convert the dataset anew",
}
CONVERSION_WITH_NOTES = {**CONVERSION, "required": ["cases", "notes"]}

DECATHLON = {
    **_record(
        "a dataset.json of the Decathlon",
        {
            "labels": _by_name(_text("the name of a structure"), "an object of names by label", minProperties=2,
                               propertyNames={"pattern": "^[0-9]{1,4}$", "description": "a label (a number)"}),
            "modality": _by_name(_text("the name of a channel"), "an object of channel names by number",
                                 minProperties=1,
                                 propertyNames={"pattern": "^[0-9]{1,4}$", "description": "a channel (a number)"}),
        },
        {"name": {"type": "string", "description": "a text"}},
    ),
    "remedy": "it is no dataset.json of the Decathlon, restore or remove it",
}  # fmt: skip
DECATHLON["properties"]["labels"]["required"] = ["0"]
DECATHLON["properties"]["modality"]["required"] = ["0"]

SHARE = _or_null(_real("a number from 0 to 1, or null", minimum=0, maximum=1))
DISTANCE = _or_null(_real("a number from 0, or null", minimum=0))
METRICS = _record(
    "an object of metrics",
    {
        "dice": SHARE,
        "iou": SHARE,
        "hd95": DISTANCE,
        "hd": DISTANCE,
        "asd": DISTANCE,
        "nsd": SHARE,
        "volume_difference": _or_null(_real("a number, or null")),
        "relative_volume_difference": _or_null(_real("a number from -1, or null", minimum=-1)),
    },
)
POOLED = "pooled evaluation"
"""The kind of a study's averages over seeds: a DSC and an IoU that are averages do not belong to each other."""

EVALUATION = {
    **_record(
        "a result of `nnunetv2_levit evaluate`",
        {
            "kind": {"enum": ["evaluation", POOLED], "description": "'evaluation'"},
            "name": _text(),
            "predictions": _text("a path"),
            "ground_truth": _text("a path"),
            "file_ending": _text("a file ending such as .nii.gz"),
            "dataset": {"type": "string", "description": "a text"},
            "split": _text(),
            "unit": {"enum": ["mm", "px"], "description": "'mm' or 'px'"},
            "dimensions": {"enum": [2, 3], "description": "2 or 3"},
            "tolerance": _real("a number from 0", minimum=0),
            "structures": _by_name(
                _list(_whole("a label", minimum=0), "a list of labels", minItems=1),
                "an object of labels by structure",
                minProperties=1,
            ),
            "ignore_label": {"type": ["integer", "null"], "description": "a label or null"},
            "interval": _text(),
            "cases": _list(
                _record(
                    "a case (an object)",
                    {
                        "case": _text("the name of a case"),
                        "patient": _text("the name of a patient"),
                        "fold": _or_null(_text("the name of a fold, or null")),
                        "presence": _by_name(
                            {"enum": ["both", "missed", "spurious", "absent"],
                             "description": "both, missed, spurious or absent"},
                            "an object of presences by structure",
                        ),
                        "metrics": _by_name(METRICS, "an object of metrics by structure"),
                    },
                    {"protocol": _by_name(_by_name(_real(), "an object of numbers"), "an object by structure")},
                ),
                "a list of cases",
                minItems=1,
            ),
        },
        {"protocol": _record("a protocol (an object)", {"name": _text("the name of a protocol")})},
    ),
    "finite": True,
    "remedy": "run `nnunetv2_levit evaluate` again",
}  # fmt: skip

CHECKPOINT_NOTE = {
    **_record("a note of `nnunetv2_levit blocks`", {"sha256": _text("a SHA-256")}),
    "remedy": "give another folder with -o",
}

KNOCK_OUT_CASE = {
    **_record(
        "a case of a knock-out study",
        {
            "case": _text("the name of a case"),
            "unit": {"enum": ["mm", "px"], "description": "'mm' or 'px'"},
            "made_with": {"type": "object", "description": "an object"},
            "results": _by_name(
                _by_name(_record("an object of metrics", {"dice": SHARE, "hd95": DISTANCE}), "an object by structure"),
                "an object by knock-out",
                minProperties=1,
            ),
        },
    ),
    "finite": True,
    "remedy": "remove it, so that the case is computed anew",
}

BENCHMARK = {
    **_record(
        "a result of `nnunetv2_levit benchmark`",
        {
            "device": _text(),
            "modes": _list(_text("the name of a mode"), "a list of modes", minItems=1),
            "rows": _list(
                _record(
                    "a row (an object)",
                    {
                        "network": _text("the name of a network"),
                        "patch_size": {**SIDES, "maxItems": 2, "description": "two whole numbers above 0"},
                        "batch_size": _whole("a whole number above 0", minimum=1),
                        "parameters": _whole("a whole number above 0", minimum=1),
                        "seconds_per_image": _by_name(
                            _or_null(_real("a number above 0, or null", exclusiveMinimum=0)),
                            "an object of times by mode",
                        ),
                    },
                    {"not_measured": _by_name(_text("a reason"), "an object of reasons by mode")},
                ),
                "a list of rows",
                minItems=1,
            ),
        },
    ),
    "finite": True,
    "remedy": "run `nnunetv2_levit benchmark` again",
}  # fmt: skip

PAPER = {
    **_record(
        "a transcribed paper",
        {
            "paper": _text(),
            "citation": _text(),
            "tables": _list({"type": "object", "description": "a table"}, "a list of tables", minItems=1),
        },
    ),
    "remedy": "install nnunetv2_levit anew",
}
