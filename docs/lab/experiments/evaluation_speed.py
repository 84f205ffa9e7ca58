"""Surface metrics of real labels, ours beside two other libraries in one run, case by case in turn.

    python docs/lab/experiments/evaluation_speed.py ACDC docs/lab/results/evaluation_speed_cpu.json --volumes 40

Each structure is moved a little in the plane to stand in for a prediction. Every library computes HD, HD95, ASD and,
where it has it, surface Dice, of each structure of each volume, in mm; reading the files is not part of it. The times
are of a machine shared with other work: only the ratios are kept.
"""

import argparse
import json
import platform
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import SimpleITK as sitk
import surface_distance
from medpy.metric import binary as medpy
from tqdm import tqdm

from nnunetv2_levit.evaluation.surface_distances import surface_distances


def ours(prediction, truth, spacing):
    distances = surface_distances(prediction, truth, spacing)
    return distances.hausdorff(), distances.hausdorff_95(), distances.average(), distances.dice(2.0)


def deepmind(prediction, truth, spacing):
    distances = surface_distance.compute_surface_distances(truth, prediction, spacing)
    return (
        surface_distance.compute_robust_hausdorff(distances, 100),
        surface_distance.compute_robust_hausdorff(distances, 95),
        surface_distance.compute_average_surface_distance(distances),
        surface_distance.compute_surface_dice_at_tolerance(distances, 2.0),
    )


def with_medpy(prediction, truth, spacing):
    return tuple(metric(prediction, truth, spacing) for metric in (medpy.hd, medpy.hd95, medpy.assd))


LIBRARIES = {"nnunetv2_levit": ours, "surface-distance": deepmind, "MedPy": with_medpy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("acdc", type=Path, help="ACDC as released")
    parser.add_argument("output", type=Path)
    parser.add_argument("--volumes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    rng = np.random.default_rng(0)
    cases = []
    for path in sorted(arguments.acdc.glob("training/*/*_gt.nii.gz"))[: arguments.volumes]:
        image = sitk.ReadImage(str(path))
        truth = sitk.GetArrayFromImage(image)
        for label in (1, 2, 3):
            mask = truth == label
            cases.append((np.roll(mask, rng.integers(-3, 4, 2), (1, 2)), mask, image.GetSpacing()[::-1]))
    for function in LIBRARIES.values():
        function(*cases[0])
    rounds = []
    for _ in range(arguments.rounds):
        seconds = dict.fromkeys(LIBRARIES, 0.0)
        for case in tqdm(cases):
            for name, function in LIBRARIES.items():
                start = perf_counter()
                function(*case)
                seconds[name] += perf_counter() - start
        rounds.append({name: value / seconds["nnunetv2_levit"] for name, value in seconds.items()})
    result = {
        "volumes": len(cases) // 3,
        "structures": len(cases),
        "processor": platform.machine(),
        "rounds": rounds,
        "time_relative_to_ours": {name: round(median(r[name] for r in rounds), 2) for name in LIBRARIES},
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(result["time_relative_to_ours"])


if __name__ == "__main__":
    main()
