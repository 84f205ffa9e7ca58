"""A synthetic cine-MRI phantom of the short axis in ACDC's exact layout, for demonstrations and tests.

Each patient has a left ventricle (bright pool in a dark ring), a right ventricle beside it, a torso with bright
distractors of the pools' intensity, a bias field, blur and noise. The disease group changes the geometry; from ED to ES
the pools shrink and the wall thickens.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_levit.dataset_conversion.acdc import GROUPS

RV, MYO, LV = 1, 2, 3


@dataclass(frozen=True)
class _Heart:
    """Geometry of one patient at ED in mm, at the base of the heart."""

    lv_radius: float
    wall: float
    rv_radius: float
    contraction: float
    rv_angle: float
    centre: tuple[float, float]


def _draw_heart(rng: np.random.Generator, group: str) -> _Heart:
    lv, wall, rv, contraction = rng.uniform(18, 22), rng.uniform(7, 9), rng.uniform(20, 24), 0.68
    if group == "DCM":
        lv, contraction = lv * 1.3, 0.9
    elif group == "HCM":
        lv, wall, contraction = lv * 0.85, wall * 1.6, 0.55
    elif group == "MINF":
        wall, contraction = wall * 0.85, 0.85
    elif group == "RV":
        rv = rv * 1.35
    return _Heart(lv, wall, rv, contraction, rng.uniform(-0.8, 0.8), tuple(rng.uniform(-10, 10, size=2)))


def _frame(
    heart: _Heart, *, size: int, slices: int, spacing: float, es: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels, both (slices, size, size); ``rng`` draws noise and distractors."""
    shrink = heart.contraction if es else 1.0
    axis = (np.arange(size) - size / 2) * spacing
    y, x = np.meshgrid(axis - heart.centre[0], axis - heart.centre[1], indexing="ij")
    image = np.zeros((slices, size, size))
    labels = np.zeros((slices, size, size), dtype=np.uint8)
    body = rng.uniform(0.25, 0.4) + 0.25 * gaussian_filter(rng.standard_normal((size, size)), 4 / spacing)
    spots = [(*rng.uniform(-0.45, 0.45, 2) * size * spacing, rng.uniform(6, 18)) for _ in range(14)]
    for index in range(slices):
        taper = 1 - 0.55 * (index / max(1, slices - 1)) ** 2  # from base to apex
        radius, thickness = heart.lv_radius * taper * shrink, heart.wall * (1 + 0.5 * (1 - shrink))
        wobble = 1 + 0.08 * np.cos(2 * np.arctan2(y, x) + 3 * heart.rv_angle)
        distance = np.hypot(y, x) / wobble
        angle = np.pi + heart.rv_angle
        reach = radius + thickness + 0.35 * heart.rv_radius * taper
        rv_y, rv_x = y - reach * np.sin(angle), x - reach * np.cos(angle)
        along, across = (
            rv_y * np.cos(angle) - rv_x * np.sin(angle),
            rv_x * np.cos(angle) + rv_y * np.sin(angle),
        )
        rv_radius = heart.rv_radius * taper * (0.5 + 0.5 * shrink)
        label = labels[index]
        label[np.hypot(along / 1.25, across) < rv_radius * 0.8] = RV
        label[distance < radius + thickness] = MYO
        label[distance < radius] = LV
        slice_image = body.copy()
        for spot_y, spot_x, spot_radius in spots:
            slice_image[np.hypot(y - spot_y, x - spot_x) < spot_radius] = 0.8
        slice_image[distance < radius + thickness + 6] = 0.35  # fat around the wall; the RV may touch distractors
        slice_image[(label == RV) | (label == LV)] = 0.75
        slice_image[label == MYO] = 0.2
        for muscle in (0.9, 2.6):  # papillary muscles, dark and part of the pool, as ACDC labels them
            muscle_y, muscle_x = 0.55 * radius * np.sin(muscle), 0.55 * radius * np.cos(muscle)
            slice_image[np.hypot(y - muscle_y, x - muscle_x) < 0.2 * radius] = 0.25
        image[index] = slice_image
    bias = 1 + 0.3 * gaussian_filter(rng.standard_normal((size, size)), size / 5) * size / 5
    image = gaussian_filter(image, (0, 0.8, 0.8)) * bias
    image += 0.14 * rng.standard_normal(image.shape)
    return np.clip(image, 0, None) * 400, labels


def _save(volume: np.ndarray, path: Path, *, spacing: tuple[float, float, float], dtype: type) -> None:
    """Write (slices, y, x) with the release's header: spacing in pixdim alone, a unit sform of code 2."""
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0).astype(dtype), np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=2)
    image.header.set_qform(None, code=0)
    image.header["pixdim"][1:4] = spacing
    nibabel.save(image, path)


def write_phantom(
    target: Path, *, patients: int = 10, size: int = 96, slices: int = 6, spacing_mm: float = 1.6, seed: int = 0
) -> Path:
    """Write ``patients`` folders of ED and ES frames under ``target/training`` and return ``target``.

    Patient k is drawn from ``seed`` and k alone, so more patients leave the earlier ones as they are.
    """
    for number in range(1, patients + 1):
        rng = np.random.default_rng((seed, number))
        group = GROUPS[(number - 1) % len(GROUPS)]
        heart = _draw_heart(rng, group)
        name = f"patient{number:03d}"
        folder = target / "training" / name
        folder.mkdir(parents=True, exist_ok=True)
        frames = {"ED": 1, "ES": int(rng.integers(8, 14))}
        appearance = int(rng.integers(2**31))
        for phase, frame in frames.items():
            # the same distractors and bias field in both frames, as in a real series
            image, labels = _frame(
                heart,
                size=size,
                slices=slices,
                spacing=spacing_mm,
                es=phase == "ES",
                rng=np.random.default_rng(appearance),
            )
            voxel = (spacing_mm, spacing_mm, 10.0)
            _save(image, folder / f"{name}_frame{frame:02d}.nii.gz", spacing=voxel, dtype=np.int16)
            _save(labels, folder / f"{name}_frame{frame:02d}_gt.nii.gz", spacing=voxel, dtype=np.uint8)
        (folder / "Info.cfg").write_text(f"ED: {frames['ED']}\nES: {frames['ES']}\nGroup: {group}\n")
    return target
