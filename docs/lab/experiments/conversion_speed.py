"""Time of converting ACDC-size cases against copying the same files three times, in one run.

    python docs/lab/experiments/conversion_speed.py ACDC_FOLDER [CASES]

Copies the patients of ACDC_FOLDER under new names until there are CASES cases (200 by default), with one voxel changed
in each further round so that no case is a copy. Both are timed in turn, eleven times after one
round that is not counted.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import nibabel
import numpy as np

from nnunetv2_levit.dataset_conversion.convert import convert


def enlarge(source: Path, target: Path, cases: int) -> None:
    """Patients of ``source`` under consecutive numbers, changed in one voxel from the second round on."""
    patients = sorted(path for path in (source / "training").iterdir() if path.is_dir())
    for number in range(cases // 2):
        patient, turn = patients[number % len(patients)], number // len(patients)
        folder = target / "training" / f"patient{number + 1:03d}"
        folder.mkdir(parents=True)
        for path in patient.iterdir():
            copy = folder / path.name.replace(patient.name, folder.name)
            shutil.copyfile(path, copy)
            if turn and "_gt" not in path.name and path.name.endswith(".nii.gz"):
                image = nibabel.load(path)
                values = np.asanyarray(image.dataobj).copy()
                values[0, 0, 0] += turn
                nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), copy)


def main() -> None:
    source, cases = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        enlarge(source, root / "source", cases)
        os.environ["nnUNet_raw"] = str(root / "raw")  # noqa: SIM112
        times: dict[str, list[float]] = {"convert": [], "copy three times": []}
        for _ in range(12):
            start = perf_counter()
            convert("acdc", source=root / "source", dataset_id=27)
            times["convert"].append(perf_counter() - start)
            shutil.rmtree(root / "raw")
            start = perf_counter()
            for copy in range(3):
                shutil.copytree(root / "source", root / f"copy{copy}")
            times["copy three times"].append(perf_counter() - start)
            for copy in range(3):
                shutil.rmtree(root / f"copy{copy}")
    ratios = [a / b for a, b in zip(times["convert"][1:], times["copy three times"][1:], strict=True)]
    result = {"cases": cases, "ratio_median": round(median(ratios), 2), "ratios": [round(r, 2) for r in ratios]}
    print(json.dumps(result | {name: [round(t, 2) for t in ts[1:]] for name, ts in times.items()}))


if __name__ == "__main__":
    main()
