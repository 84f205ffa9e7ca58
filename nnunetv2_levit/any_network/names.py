"""Networks by name: ``levit_unet_384``, ``package.module:Class``, ``smp:Unet/resnet34``, ``timm:convnext_tiny``,
``monai:SwinUNETR``."""

import difflib
import pydoc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.any_network.signature import CLASS, complete_arguments, fill_in
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.network_architectures import REGISTRY, create, register_other_packages
from nnunetv2_levit.network_architectures.layers.grids import Grid

SMP, MONAI_NETWORKS = "segmentation_models_pytorch", "monai.networks.nets"
DISTRIBUTIONS = {SMP: "'nnunetv2_levit[smp]'"}
"""What to install where the package has another name than its distribution."""
DEFAULT_DECODER = "Unet"  # of segmentation_models.pytorch, around an encoder that is named alone
FORMS = "a registered network, package.module:Class, smp:MODEL[/ENCODER], timm:ENCODER or monai:CLASS"


@dataclass(frozen=True)
class NamedNetwork:
    """A network that can be built for any channels, classes and image size.

    Attributes:
        name: as a person gave it.
        target: a registered name, or the importable path of a class.
        arguments: its keywords; placeholders stand for channels, classes and image size (see `signature`).
    """

    name: str
    target: str
    arguments: dict[str, Any]

    def build(self, *, channels: int, classes: int, image_size: Grid) -> nn.Module:
        """The network with random weights.

        Raises:
            UserError: it can't be built with these arguments.
        """
        return build_network(
            self.target, self.arguments, channels=channels, classes=classes, image_size=image_size, name=self.name
        )

    @property
    def takes_image_size(self) -> bool:
        """Whether the network has to be built anew for another image size."""
        return any(text in repr(self.arguments) for text in ("{image_size}", "{height}", "{width}", "{side}"))

    @property
    def squares_only(self) -> bool:
        """Whether the network takes one number for both sides of its images."""
        return "{side}" in repr(self.arguments)

    def of_any_size(self, *, channels: int, classes: int) -> NetworkOfAnySize:
        """The network for images of any size, each of which raises as `build` does."""
        return NetworkOfAnySize(
            lambda size: self.build(channels=channels, classes=classes, image_size=size),
            takes_image_size=self.takes_image_size,
            squares_only=self.squares_only,
        )

    @property
    def plain_name(self) -> str:
        """The name as a part of a configuration's name."""
        name = self.name.rpartition(":")[2] if is_importable_path(self.name) else self.name
        if is_importable_path(name):
            name = name.rpartition(".")[2]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.-")


def is_importable_path(name: str) -> bool:
    """Whether a name is ``package.module:Class`` (or with a point), not one of the prefixes."""
    return name.partition(":")[0] not in ("smp", "timm", "monai") and (":" in name or "." in name)


def require_package(path: str, *, name: str) -> None:
    """Raise a UserError, naming the package, where the first package of an importable path is not installed."""
    package = path.split(".")[0]
    try:
        missing = not package.isidentifier() or find_spec(package) is None
    except ValueError:  # a module that was made by hand
        missing = False
    if missing:
        install = DISTRIBUTIONS.get(package)
        remedy = f"pip install {install}" if install else "install it, or add its folder to PYTHONPATH"
        raise UserError(f"the network {name} needs the package {package}, which is not installed here: {remedy}")


def _near(name: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(choices)}"


def locate_class(path: str, *, name: str) -> type[nn.Module]:
    """The class of an importable path such as ``monai.networks.nets.SegResNet``.

    Raises:
        UserError: its package is missing, it can't be imported, or it is no class of networks.
    """
    require_package(path, name=name)
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(
            f"the network {name} can't be imported ({type(error.value).__name__}: {error.value})"
        ) from error
    if found is None:
        module, _, class_name = path.rpartition(".")
        holder = pydoc.locate(module) if module else None
        choices = [key for key, value in vars(holder).items() if _is_network_class(value)] if holder else []
        advice = _near(class_name, choices) if choices else "check the module's and the class's name"
        raise UserError(f"there is no {path}, which the network {name} names: {advice}")
    if not _is_network_class(found):
        raise UserError(f"{path} is no class of networks (torch.nn.Module): name a class")
    assert isinstance(found, type)
    return found


def _is_network_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _smp(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    prefix, _, rest = name.partition(":")
    model, _, encoder = rest.partition("/") if prefix == "smp" else (DEFAULT_DECODER, "/", f"tu-{rest}")
    if not model.isidentifier() or (prefix == "timm" and not rest):
        raise UserError(f"{name!r} names no network: write smp:Unet/resnet34 or timm:convnext_tiny")
    # never weights that are downloaded while a network is built, which prediction does too
    arguments = {"encoder_weights": None, **({"encoder_name": encoder} if encoder else {}), **settings}
    return f"{SMP}.{model}", arguments


def _target(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The importable path of a class, and what is set of its arguments."""
    prefix, _, rest = name.partition(":")
    if prefix in ("smp", "timm"):
        return _smp(name, settings)
    if prefix == "monai":
        return f"{MONAI_NETWORKS}.{rest}", dict(settings)
    path = name.replace(":", ".")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
        raise UserError(f"there is no network {name!r}: give {FORMS}")
    return path, dict(settings)


def target_of(name: str) -> str:
    """The importable path of the class that a name stands for.

    Raises:
        UserError: it is no name of a class.
    """
    return _target(name, {})[0]


def find_network(name: str, settings: Mapping[str, Any] | None = None) -> NamedNetwork:
    """A network by name, its arguments completed with what the class takes.

    Args:
        name: of a registered network, ``package.module:Class``, ``smp:MODEL[/ENCODER]``, ``timm:ENCODER``,
            ``monai:CLASS``.
        settings: further arguments; ``{channels}``, ``{classes}``, ``{image_size}``, ``{height}``, ``{width}`` and
            ``{side}`` stand for what is known when the network is built.

    Raises:
        UserError: an unknown name, a missing package, or arguments that the class does not take or still needs.
    """
    settings = settings or {}
    register_other_packages()
    if name in REGISTRY:
        shared = {"in_channels": "{channels}", "num_classes": "{classes}", "image_size": "{image_size}"}
        return NamedNetwork(name, name, {**shared, **settings})
    if ":" not in name and "." not in name:
        raise UserError(f"there is no network {name!r}: {_near(name, list(REGISTRY))} (or give {FORMS})")
    path, given = _target(name, settings)
    network_class = locate_class(path, name=name)
    return NamedNetwork(name, path, complete_arguments(network_class, given))


def _with_classes(value: Any, *, name: str) -> Any:
    """A value in which every ``class:path`` is the class of layers of that path."""
    if isinstance(value, dict):
        return {key: _with_classes(item, name=name) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_classes(item, name=name) for item in value]
    if isinstance(value, str) and value.startswith(CLASS):
        return locate_class(value.removeprefix(CLASS), name=name)
    return value


def build_network(
    target: str, arguments: Mapping[str, Any], *, channels: int, classes: int, image_size: Grid, name: str | None = None
) -> nn.Module:
    """A network from what a `NamedNetwork` or a configuration of the adapter says.

    Raises:
        UserError: the class is missing, or can't be built with these arguments.
    """
    shown = name or target
    given = _with_classes(
        fill_in(dict(arguments), channels=channels, classes=classes, image_size=image_size), name=shown
    )
    register_other_packages()
    try:
        if target in REGISTRY:
            return create(target, **given)
        return locate_class(target, name=shown)(**given)
    except UserError:
        raise
    except Exception as error:  # a foreign constructor may raise anything
        values = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise UserError(
            f"the network {shown} can't be built with {values} ({type(error).__name__}: {last_line(error)[:200]}): "
            "change it with --set"
        ) from error


def file_of(name: str) -> Path | None:
    """The file of the first package or module of an importable name; None for names of other kinds."""
    if not is_importable_path(name):
        return None
    file = getattr(import_module(re.split(r"[.:]", name)[0]), "__file__", None)
    return None if file is None else Path(file)
