"""Which arguments of a class stand for channels, classes and image size, and what else its constructor needs."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures.layers.grids import Grid

# by the names that people use, the likelier first
CHANNELS = ("input_channels", "in_channels", "in_chans", "n_channels", "num_input_channels", "in_ch", "img_ch",
            "num_channels", "input_nc", "channels_in", "inp_channels")  # fmt: skip
CLASSES = ("num_classes", "classes", "n_classes", "out_channels", "num_output_channels", "output_channels", "out_chans",
           "out_ch", "output_ch", "nclass", "n_class", "num_class", "output_nc")  # fmt: skip
IMAGE_SIZE = ("image_size", "img_size", "input_size", "image_shape", "img_shape", "input_shape", "patch_size_image")
DIMENSIONS = ("spatial_dims", "spatial_dimensions", "ndim", "n_dims")
DEEP_SUPERVISION = ("deep_supervision", "do_ds", "deep_supr")

PLACEHOLDERS = ("{channels}", "{classes}", "{image_size}", "{height}", "{width}", "{side}")
"""What stands in settings and plans for what is only known when a network is built."""
CLASS = "class:"
"""What a text begins with that stands for a class of layers, such as ``class:torch.nn.BatchNorm2d``."""
NNUNET = ("input_channels", "num_classes", "deep_supervision", "strides")
"""What nnU-Net's stock trainers hand to a network's class, and read of its arguments."""


def fill_in(value: Any, *, channels: int, classes: int, image_size: Grid) -> Any:
    """A setting with its placeholders replaced, within lists and objects too.

    Raises:
        UserError: ``{side}`` stands for the side of a square, and the image is none.
    """
    if isinstance(value, Mapping):
        return {
            key: fill_in(item, channels=channels, classes=classes, image_size=image_size) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [fill_in(item, channels=channels, classes=classes, image_size=image_size) for item in value]
    if value not in PLACEHOLDERS:
        return value
    if value == "{side}" and image_size[0] != image_size[1]:
        raise UserError(
            f"the network takes one number for the side of its images, and {image_size[0]}x{image_size[1]} is no "
            "square: choose a square patch, or set the argument to {height}, {width} or {image_size}"
        )
    return {
        "{channels}": channels,
        "{classes}": classes,
        "{image_size}": tuple(image_size),
        "{height}": image_size[0],
        "{width}": image_size[1],
        "{side}": image_size[0],
    }[value]


def parameters_of(network_class: type) -> dict[str, inspect.Parameter]:
    """Parameters of a class's constructor without ``self``.

    Raises:
        UserError: the signature can't be read.
    """
    try:
        return dict(inspect.signature(network_class).parameters)
    except (TypeError, ValueError) as error:
        raise UserError(f"the arguments of {network_class.__name__} can't be read ({error})") from error


def _takes_any_keyword(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def has_nnunet_signature(network_class: type) -> bool:
    """Whether nnU-Net's stock trainers can build the class from plans: see `NNUNET`."""
    return set(NNUNET) <= set(parameters_of(network_class))


def _is_whole_number(parameter: inspect.Parameter) -> bool:
    """Whether the annotation asks for one number."""
    return parameter.annotation in (int, "int") or (
        typing.get_origin(parameter.annotation) is None and isinstance(parameter.default, int)
    )


def _takes_anyone(value: Any, placeholder: str) -> bool:
    if isinstance(value, Mapping):
        return any(_takes_anyone(item, placeholder) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_takes_anyone(item, placeholder) for item in value)
    return bool(value == placeholder)


def complete_arguments(network_class: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a class: what is set, and placeholders for channels, classes and image size where it takes them.

    Networks of several dimensions are asked for two, and deep supervision is switched off.

    Raises:
        UserError: a setting that is no argument, no argument for channels or classes, or one without a value.
    """
    parameters = parameters_of(network_class)
    name = network_class.__name__
    unknown = [key for key in settings if key not in parameters]
    if unknown and not _takes_any_keyword(parameters):
        raise UserError(f"{name} has no argument {unknown[0]!r}: it takes {', '.join(parameters)}")
    arguments = dict(settings)
    wanted = (("channels", CHANNELS, "{channels}"), ("classes", CLASSES, "{classes}"))
    for what, names, placeholder in wanted:
        if _takes_anyone(settings, placeholder):
            continue
        found = next((key for key in names if key in parameters and key not in settings), None)
        if found is None:
            raise UserError(
                f"{name} has no argument for the number of {what} (looked for {', '.join(names)}): name it with "
                f"--set ARGUMENT={placeholder}; it takes {', '.join(parameters) or 'none'}"
            )
        arguments[found] = placeholder
    size = next((key for key in IMAGE_SIZE if key in parameters and key not in settings), None)
    if size is not None and not any(_takes_anyone(settings, text) for text in PLACEHOLDERS[2:]):
        arguments[size] = "{side}" if _is_whole_number(parameters[size]) else "{image_size}"
    fixed = {**dict.fromkeys(DIMENSIONS, 2), **dict.fromkeys(DEEP_SUPERVISION, False)}
    arguments |= {key: value for key, value in fixed.items() if key in parameters and key not in settings}
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and key not in arguments
    ]
    if required:
        raise UserError(
            f"{name} needs {', '.join(required)}: give {'it' if len(required) == 1 else 'them'} with "
            f"--set {required[0]}=…"
        )
    return arguments
