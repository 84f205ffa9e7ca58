"""The slice of a case that is looked at: which one, which part of it the network sees, and which tokens are asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from scipy.ndimage import distance_transform_edt, uniform_filter

from nnunetv2_levit.analysis.analysed_model import AnalysedModel
from nnunetv2_levit.analysis.token_grids import token_shares
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.image_files import differing_geometry, read_images, read_label_file
from nnunetv2_levit.inference.case_files import Case, cases_for
from nnunetv2_levit.network_architectures.layers.grids import token_grid
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH
from nnunetv2_levit.nnunet.dataset_description import allowed_labels

Place = tuple[float, float]
SKIPPED = "Skipped, as there is nothing to ask about"


class NothingToAskError(UserError):
    """A case, or its slice, holds no structure."""


@dataclass(frozen=True)
class Query:
    """What is asked: the token at a place of the patch, in pixels (row, column).

    Attributes:
        structure: that it stands for; None for a place given by coordinates.
    """

    name: str
    place: Place
    structure: str | None


@dataclass(frozen=True)
class PreparedCase:
    """A case as the network gets it, with its true structures where labels were given.

    Attributes:
        volume: preprocessed image (C, D, H, W).
        masks: true structures (D, H, W) on the same grid, or None.
        properties: nnU-Net's, with what its preprocessing did.
    """

    case: Case
    volume: np.ndarray
    masks: dict[str, np.ndarray] | None
    properties: dict[str, Any]


@dataclass(frozen=True)
class AnalysedPatch:
    """What the network sees of one slice.

    Attributes:
        slice_index: in the image file, counted from 0.
        image: (C, h, w), preprocessed.
        masks: structures (h, w) by name; those that do not occur are left out.
        source: "ground truth" or "prediction".
        corner: of the patch in the preprocessed slice; below 0 where the slice was padded.
    """

    case: str
    slice_index: int
    slices: int
    image: np.ndarray
    masks: dict[str, np.ndarray]
    source: str
    queries: list[Query]
    corner: tuple[int, int]
    absent: list[str] = field(default_factory=list)


def find_analysed_cases(model: AnalysedModel, images: Path) -> list[Case]:
    """Cases of a folder, or the one of a file (any of its channels).

    Raises:
        UserError: there is none for this model.
    """
    folder = images if images.is_dir() else images.parent
    reader = model.trained.plans.image_reader_writer_class
    if not images.exists():
        raise UserError(f"there is no file or folder {images}: give an image CASE_0000… or a folder of them with -i")
    if images.is_file():
        ending = model.trained.dataset["file_ending"]
        if not images.name.endswith(ending):
            raise UserError(
                f"{images} is no case of the model's dataset, whose images end in {ending}: give another with -i"
            )
    cases = cases_for(reader, model.trained.dataset, folder, folder)
    if images.is_file():
        cases = [case for case in cases if images in case.channels]
        if not cases:
            raise UserError(f"{images} has no channel's number: name it like CASE_0000{ending}")
    return cases


def prepare_case(model: AnalysedModel, case: Case, labels: Path | None = None) -> PreparedCase:
    """Read and preprocess a case, and its labels from the folder ``labels`` where one is given.

    Raises:
        UserError: a file is missing, unreadable, of another dataset or another grid.
    """
    trained = model.trained
    reader = trained.plans.image_reader_writer_class()
    image, properties = read_images(case.channels, reader)
    case.check_channels(len(image), trained.in_channels)
    truth: np.ndarray | None = None
    if labels is not None:
        path = labels / f"{case.name}{trained.dataset['file_ending']}"
        if not path.is_file():
            raise UserError(f"{labels} has no labels {path.name} of {case.name}: give the folder that has them")
        values, theirs = read_label_file(path, reader, allowed=allowed_labels(trained.dataset))
        different = differing_geometry((image.shape[1:], properties), (values.shape, theirs))
        if different is not None:
            raise UserError(f"{path} is not aligned with {case.channels[0]}: they differ in {different[0]}")
        truth = values[None].astype(np.int16)
    preprocessor = trained.configuration.preprocessor_class(verbose=False)
    data, segmentation, properties = preprocessor.run_case_npy(
        image, truth, properties, trained.plans, trained.configuration, trained.dataset
    )
    masks = None if truth is None else model.masks(segmentation[0])
    return PreparedCase(case, np.ascontiguousarray(data, dtype=np.float32), masks, properties)


def _to_preprocessed(properties: dict[str, Any], shape: Sequence[int], place: Place) -> Place:
    """A place of the image file's slice (row, column of a voxel) in the preprocessed slice, in pixels."""
    box = properties["bbox_used_for_cropping"][1:]
    before = properties["shape_after_cropping_and_before_resampling"][1:]
    row, column = (
        (value + 0.5 - low) * new / old for value, (low, _), new, old in zip(place, box, shape, before, strict=True)
    )
    return row, column


def _slice_number(prepared: PreparedCase, index: int) -> int:
    """The preprocessed slice of a slice of the image file."""
    low, high = prepared.properties["bbox_used_for_cropping"][0]
    slices = prepared.properties["shape_before_cropping"][0]
    if not 0 <= index < slices:
        raise UserError(f"{prepared.case.name} has the slices 0 to {slices - 1}, not {index}: give another --slice")
    if not low <= index < high:
        raise UserError(
            f"slice {index} of {prepared.case.name} is empty (zero everywhere): give one of {low} to {high - 1}"
        )
    return index - low


def _place_in(mask: np.ndarray) -> Place:
    """Where a structure (h, w) is asked about: its pixel farthest from its border, in the token that it fills most."""
    rows, columns = token_grid((mask.shape[0], mask.shape[1]), PATCH)
    shares = token_shares(mask, (rows, columns), PATCH)
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    token = np.zeros_like(mask)
    token[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = True
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] * token
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(row) + 0.5, float(column) + 0.5


def _corner(extent: int, side: int, centre: float) -> int:
    """Where a patch of ``side`` pixels begins so that ``centre`` is as near to its middle as the slice allows."""
    return int(np.clip(round(centre - side / 2), 0, extent - side))


def _check_places(prepared: PreparedCase, places: Sequence[Place]) -> None:
    height, width = prepared.properties["shape_before_cropping"][1:]
    for row, column in places:
        if not (0 <= row < height and 0 <= column < width):
            raise UserError(
                f"the query {row:g},{column:g} lies outside the slices of {prepared.case.name}, which have "
                f"{height} x {width} voxels: give ROW,COLUMN counted from 0"
            )


def _middle(mask: np.ndarray, patch_size: Sequence[int]) -> np.ndarray:
    """The middle of what a mask (H, W) holds; where a patch is too small for all, that of the patch that holds most."""
    ends = [(where.min(), where.max() + 1) for where in np.nonzero(mask)]
    if all(high - low <= side for (low, high), side in zip(ends, patch_size, strict=True)):
        return np.array([(low + high) / 2 for low, high in ends])
    shares = uniform_filter(mask.astype(np.float64), tuple(patch_size), mode="constant")
    return np.array(np.unravel_index(int(shares.argmax()), mask.shape), dtype=np.float64)


def choose_patch(
    model: AnalysedModel,
    prepared: PreparedCase,
    *,
    slice_index: int | None = None,
    places: Sequence[Place] = (),
) -> AnalysedPatch:
    """The patch that is looked at, and its queries: at ``places`` of the slice, else one for each structure in it.

    The slice is ``slice_index``, or where the structures' area is largest. The structures are the true ones where they
    are known, else the predicted ones. A structure's query is the token of 16 pixels that it fills most.

    Raises:
        NothingToAskError: no structure, and no place.
        UserError: no such slice or place.
    """
    name = prepared.case.name
    _check_places(prepared, places)
    masks, source = prepared.masks, "ground truth"
    number = None if slice_index is None else _slice_number(prepared, slice_index)
    volume = prepared.volume
    first = 0
    if masks is None:
        source = "prediction"
        if number is not None:  # one slice is enough
            volume, first = volume[:, number : number + 1], number
        masks = model.predicted_masks(volume)
    area = np.sum([mask.sum(axis=(1, 2)) for mask in masks.values()], axis=0)
    if number is None:
        number = int(area.argmax())
    in_slice = {key: mask[number - first] for key, mask in masks.items()}
    present = {key: mask for key, mask in in_slice.items() if mask.any()}
    if not present and not places:
        where = "nothing" if slice_index is None else f"nothing in slice {slice_index}"
        raise NothingToAskError(f"the {source} of {name} has {where} to ask about")
    shape = in_slice[next(iter(in_slice))].shape
    centres = [_to_preprocessed(prepared.properties, shape, place) for place in places]
    middle = np.mean(centres, axis=0) if centres else _middle(np.any(list(present.values()), axis=0), model.patch_size)
    image, inside = pad_nd_image(prepared.volume[:, number], model.patch_size, "constant", {"constant_values": 0}, True)
    before = [part.start or 0 for part in inside[1:]]
    corner = [
        _corner(extent, side, centre + offset)
        for extent, side, centre, offset in zip(image.shape[1:], model.patch_size, middle, before, strict=True)
    ]
    window = tuple(slice(low, low + side) for low, side in zip(corner, model.patch_size, strict=True))
    moved = np.subtract(before, corner)
    patch_masks = {}
    for key, mask in present.items():
        padded = np.pad(
            mask,
            [(low, total - low - side) for low, total, side in zip(before, image.shape[1:], mask.shape, strict=True)],
        )
        if padded[window].any():
            patch_masks[key] = padded[window]
    return AnalysedPatch(
        case=name,
        slice_index=number + prepared.properties["bbox_used_for_cropping"][0][0],
        slices=int(prepared.properties["shape_before_cropping"][0]),
        image=np.ascontiguousarray(image[:, window[0], window[1]]),
        masks=patch_masks,
        source=source,
        queries=_queries(patch_masks, [(float(r + moved[0]), float(c + moved[1])) for r, c in centres], places, model),
        corner=(-int(moved[0]), -int(moved[1])),
        absent=[key for key in in_slice if key not in patch_masks],
    )


def _queries(
    masks: dict[str, np.ndarray], centres: Sequence[Place], places: Sequence[Place], model: AnalysedModel
) -> list[Query]:
    if not places:
        return [Query(name, _place_in(mask), name) for name, mask in masks.items()]
    found = []
    for (row, column), (r, c) in zip(centres, places, strict=True):
        if not (0 <= row < model.patch_size[0] and 0 <= column < model.patch_size[1]):
            raise UserError(
                f"the query {r:g},{c:g} does not fit one patch of {model.patch_size[0]} x {model.patch_size[1]} with "
                "the others, or lies in the empty border: give fewer or nearer places"
            )
        found.append(Query(f"{r:g},{c:g}", (row, column), None))
    return found


def chosen_patches(
    model: AnalysedModel,
    cases: Sequence[Case],
    *,
    labels: Path | None = None,
    slice_index: int | None = None,
    places: Sequence[Place] = (),
    asks_places: bool = False,
) -> Iterator[AnalysedPatch]:
    """The patch of each case (see `choose_patch`); of several cases those without a structure are left out.

    Args:
        asks_places: whether the command takes places, so that a person may be told to give one.

    Raises:
        UserError: see `prepare_case` and `choose_patch`; or no case has a structure.
    """
    ways = ["--labels"] if labels is None else []
    if len(cases) == 1:
        ways += ["another --slice"] if slice_index is not None else []
        ways += ["a place with --query"] if asks_places else []
    advice = f"give {' or '.join([*ways, 'another case with -i'])}"
    chosen = 0
    for case in cases:
        prepared = prepare_case(model, case, labels)
        try:
            patch = choose_patch(model, prepared, slice_index=slice_index, places=places)
        except NothingToAskError as nothing:
            if len(cases) == 1:
                raise UserError(f"{nothing}: {advice}") from None
            continue
        chosen += 1
        yield patch
    if not chosen:
        raise UserError(f"no case has a structure to ask about, {cases[0].name} first: {advice}")
