"""What the adapter has to do for a network, found by trying the sizes that nnU-Net plans, on shapes alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nnunetv2_levit.any_network.adapter import padded_size
from nnunetv2_levit.any_network.shapes import LARGEST_WITH_NUMBERS, NEEDS_NUMBERS, Key, NetworkOfAnySize, output_shapes
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.network_architectures.layers.grids import Grid, divide_rounding_up

SIZES: tuple[Grid, ...] = (
    (256, 256), (224, 256), (320, 320), (512, 512), (192, 160), (112, 112), (96, 96), (97, 131), (64, 64), (40, 56),
    (32, 32), (1024, 1024),
)  # fmt: skip
"""Patches as nnU-Net plans them: squares, rectangles, multiples of 4 alone, and an odd one that a person may choose."""
DECIDING: tuple[Grid, ...] = ((256, 256), (224, 256), (200, 264), (257, 321))
"""Images large enough for every stage of a network: what fails of these tells of what the sides must be multiples."""
SETTLING: tuple[Grid, ...] = ((256, 256), (224, 224), (512, 512))
"""Where a network that fails at the sizes that are asked for may still run, so that padding is tried."""
MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 56, 64, 128, 256)
BATCH = 2
IN_EVALUATION = " in evaluation"
Shapes = dict[Key, tuple[int, ...]]


@dataclass(frozen=True)
class Adaptation:
    """What the adapter does.

    Attributes:
        size_multiple, smallest_size: to what images are padded; 1 for no padding.
        output: which output holds the logits; None for a network that returns one tensor.
        failures: from a size that fails without padding to what happened.
        not_tried: sizes whose outcome shapes alone don't tell.
        squares_only: the network takes one number for both sides of its images.
    """

    size_multiple: int = 1
    smallest_size: int = 1
    output: Key = None
    failures: dict[Grid, str] = field(default_factory=dict)
    not_tried: tuple[Grid, ...] = ()
    squares_only: bool = False

    @property
    def pads(self) -> bool:
        """Whether images of some size are padded."""
        return self.size_multiple > 1 or self.smallest_size > 1

    def padded(self, size: Grid) -> Grid:
        """Height and width that the network gets."""
        return padded_size(size, multiple=self.size_multiple, smallest=self.smallest_size)

    def reasons(self) -> list[str]:
        """What the adapter does, as phrases."""
        found = []
        if self.size_multiple > 1:
            found.append(f"pads to multiples of {self.size_multiple}")
        if self.smallest_size > 1:
            found.append(f"pads to {self.smallest_size}x{self.smallest_size} at least")
        if self.output is not None:
            found.append(f"takes output {self.output!r}")
        return found


class _FailureError(Exception):
    """What a network raised, and in which mode."""


class _Trial:
    """Outcomes of one network, remembered."""

    def __init__(self, network: NetworkOfAnySize, *, channels: int, classes: int) -> None:
        self.network, self.channels, self.classes = network, channels, classes
        self.known: dict[Grid, str | None] = {}
        self.shapes: dict[Grid, tuple[Shapes, Shapes]] = {}
        self.refused: dict[Grid, UserError] = {}
        self.not_tried: list[Grid] = []
        self.output: Key = None

    def settle_output(self, sizes: Sequence[Grid]) -> None:
        """Find which output is of full resolution in training and in evaluation, at the first size that has one.

        Raises:
            UserError: the network can't be built, runs for no size, or has no such output.
        """
        said = ""
        for size in dict.fromkeys((*sizes, *SETTLING)):
            try:
                modes = self._shapes(size)
            except NEEDS_NUMBERS:
                continue
            except UserError as error:  # it can't be built for this size
                self.refused[size] = error
                continue
            except _FailureError as failure:
                said = said or f"images of {size[0]}x{size[1]} make it fail ({failure})"
                continue
            keys = dict.fromkeys(key for shapes in modes for key in shapes)
            if full := [key for key in keys if self._wrong(modes, size, key) is None]:
                self.output = full[0]
                return
            gives = f"{self._wrong(modes, size, next(iter(keys), None))}, not logits of {self.classes} x that size"
            if all((BATCH, self.classes, *size) in shapes.values() for shapes in modes):
                gives = "the logits as another output in evaluation than in training"
            said = said or f"images of {size[0]}x{size[1]} give {gives}"
        if self.refused and not said:
            raise next(iter(self.refused.values()))
        raise UserError(f"{said}: a network maps (B, {self.channels}, H, W) to logits (B, {self.classes}, H, W)")

    def why_not(self, size: Grid) -> str | None:
        """What happens at a size that the network does not take; None where it takes it."""
        if size not in self.known:
            self.known[size] = self._tried(size)
        return self.known[size]

    def _tried(self, size: Grid) -> str | None:
        try:
            wrong = self._wrong(self._shapes(size), size, self.output)
        except NEEDS_NUMBERS:
            self.not_tried.append(size)
            return None
        except UserError as error:
            self.refused[size] = error
            return _sentence(error)
        except _FailureError as failure:
            return str(failure)
        return None if wrong is None else f"gives {wrong}"

    def _shapes(self, size: Grid) -> tuple[Shapes, Shapes]:
        """Of the outputs in training and in evaluation.

        Raises:
            UserError: the network can't be built for this size.
            _FailureError: it fails.
        """
        if size in self.shapes:
            return self.shapes[size]
        network, found = self.network(size), []
        for train in (True, False):
            try:
                found.append(output_shapes(network, (BATCH, self.channels, *size), train=train))
            except NEEDS_NUMBERS:
                raise
            except Exception as error:  # a foreign network may raise anything
                raise _FailureError(f"{_sentence(error)}{'' if train else IN_EVALUATION}") from error
        self.shapes[size] = found[0], found[1]
        return self.shapes[size]

    def _wrong(self, modes: tuple[Shapes, Shapes], size: Grid, key: Key) -> str | None:
        """What the network gives where the output ``key`` is not the logits; None where it is.

        In a mode in which the network returns one tensor, that is the output, as in the adapter.
        """
        for shapes, where in zip(modes, ("", IN_EVALUATION), strict=True):
            if shapes.get(None, shapes.get(key)) != (BATCH, self.classes, *size):
                return f"{_described(shapes)}{where}"
        return None


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {last_line(error)[:160]}"


def _described(shapes: Shapes) -> str:
    if not shapes:
        return "no tensor"
    return " and ".join("x".join(map(str, shape[1:])) for shape in shapes.values())


def usual_sizes(*, squares_only: bool) -> tuple[Grid, ...]:
    """Patches as nnU-Net plans them, or the squares among them."""
    return tuple(size for size in SIZES if size[0] == size[1] or not squares_only)


def find_adaptation(
    network: NetworkOfAnySize, *, channels: int = 1, classes: int = 4, sizes: Iterable[Grid] | None = None
) -> Adaptation:
    """What a network needs to take all ``sizes`` (by default `usual_sizes`), in training and in evaluation.

    Raises:
        UserError: no output is of full resolution, or no padding helps; the sentence names a size and what happened.
    """
    squares_only = network.squares_only
    sizes = usual_sizes(squares_only=squares_only) if sizes is None else tuple(sizes)
    trial = _Trial(network, channels=channels, classes=classes)
    trial.settle_output(sizes)
    failures = {size: said for size in sizes if (said := trial.why_not(size)) is not None}
    if not failures:
        return Adaptation(output=trial.output, not_tried=tuple(trial.not_tried), squares_only=squares_only)
    for height, width in failures:
        if squares_only and height != width:
            raise trial.refused[height, width]
    deciding = tuple((side, side) for size in DECIDING for side in size) if squares_only else DECIDING
    for multiple in MULTIPLES:
        if any(trial.why_not(padded_size(size, multiple=multiple, smallest=1)) is not None for size in deciding):
            continue
        for smallest in (1, 48, 64, 96, 128, 192, 256):
            if all(trial.why_not(padded_size(size, multiple=multiple, smallest=smallest)) is None for size in failures):
                return Adaptation(
                    size_multiple=multiple,
                    smallest_size=divide_rounding_up(smallest, multiple) * multiple if smallest > multiple else 1,
                    output=trial.output,
                    failures=failures,
                    not_tried=tuple(size for size in trial.not_tried if max(size) > LARGEST_WITH_NUMBERS),
                    squares_only=squares_only,
                )
    size, said = next(iter(failures.items()))
    if size in trial.refused:
        raise trial.refused[size]
    what = said if said.startswith("gives") else f"make it fail ({said})"
    raise UserError(f"images of {size[0]}x{size[1]} {what}, and no padding helps")
