"""Classes that nnU-Net can build from plans by itself, with its own constructor and its switch of deep supervision."""

import torch
from torch import nn

from nnunetv2_levit.any_network.names import NamedNetwork
from nnunetv2_levit.any_network.shapes import output_shapes
from nnunetv2_levit.any_network.signature import NNUNET, fill_in, parameters_of
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.network_architectures.layers.grids import Grid

CHANNELS, CLASSES = 1, 4
DEFAULT_SIZE: Grid = (256, 256)


def _scales(strides: object) -> int:
    """How many scales of deep supervision nnU-Net computes from strides."""
    return len(strides) - 1 if isinstance(strides, list | tuple) else 0


def why_not_direct(network_class: type, network: NamedNetwork, *, image_size: Grid = DEFAULT_SIZE) -> str | None:
    """Why nnU-Net's stock trainers can't use a class that plans name; None where they can.

    Tried on shapes alone, at ``image_size``, as nnU-Net builds it: with and without deep supervision.
    """
    parameters = parameters_of(network_class)
    missing = [name for name in NNUNET if name not in parameters]
    if missing:
        return f"the constructor takes no {' and no '.join(missing)}"
    given = {key: value for key, value in network.arguments.items() if key not in NNUNET[:3]}
    if any(
        text in repr(given) for text in ("{channels}", "{classes}", "{image_size}", "{height}", "{width}", "{side}")
    ):
        return "the constructor takes the channels, classes or image size a second time"
    scales = _scales(given.get("strides", parameters["strides"].default))
    if scales < 2:
        return "its strides give fewer than two scales of deep supervision, of which nnU-Net weighs the last one 0"
    try:
        built = {on: _built(network, on=on) for on in (True, False)}
        shapes = {on: output_shapes(built[on], (2, CHANNELS, *image_size)) for on in (True, False)}
    except UserError as error:
        return str(error)
    except Exception as error:  # a foreign network may raise anything
        return (
            f"images of {image_size[0]}x{image_size[1]} make it fail ({type(error).__name__}: {last_line(error)[:120]})"
        )
    layouts = [{name: tuple(value.shape) for name, value in built[on].state_dict().items()} for on in (True, False)]
    if layouts[0] != layouts[1]:
        return "the state dict depends on deep_supervision, so that nothing trained with it can predict without"
    full = (2, CLASSES, *image_size)
    if shapes[False] != {None: full}:
        return "without deep supervision it does not return logits of full resolution alone"
    if shapes[True].get(0) != full or len(shapes[True]) != scales:
        return "with deep supervision it does not return one output for each scale of its strides, the full one first"
    switch = getattr(built[True], "decoder", None)
    if not hasattr(switch, "deep_supervision"):
        return "it has no decoder.deep_supervision, which nnU-Net switches"
    return None


def _built(network: NamedNetwork, *, on: bool) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        return NamedNetwork(
            network.name,
            network.target,
            {
                **fill_in(network.arguments, channels=CHANNELS, classes=CLASSES, image_size=DEFAULT_SIZE),
                "deep_supervision": on,
            },
        ).build(channels=CHANNELS, classes=CLASSES, image_size=DEFAULT_SIZE)
