"""What `nnunetv2_levit attention --knock-out` measured, averaged over cases, without names of cases or folders.

python docs/lab/experiments/attention_summary.py OUT -o docs/lab/results/attention_NETWORK.json
"""

import argparse
import json
from pathlib import Path

from nnunetv2_levit.files import write_json


def mean(values):
    """Of those that are there; None of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def layer_means(layers, owner):
    """Numbers of one layer averaged over heads and cases: of the network, or of the ``owner`` beside it."""
    found = [layer if owner is None else layer[owner] for layer in layers]
    structures = dict.fromkeys(name for numbers in found for name in numbers["outside_share"])
    shares = {name: [numbers["outside_share"].get(name) for numbers in found] for name in structures}
    return {
        **{key: mean(numbers[key]["mean"] for numbers in found) for key in ("distance_px", "distance_mm", "entropy")},
        "outside_share": {name: mean(share and share["mean"] for share in values) for name, values in shares.items()},
    }


def summary(folder: Path) -> dict:
    """The content of the results file."""
    result = json.loads((folder / "attention.json").read_text())
    layers = []
    for same in zip(*(case["layers"] for case in result["cases"]), strict=True):
        row = {"layer": same[0]["layer"], "token_px": same[0]["token_px"], **layer_means(same, None)}
        row |= {owner: layer_means(same, owner) for owner in ("uniform", "untrained")}
        for norms in ("branch_norms", "untrained_branch_norms"):
            if norms in same[0]:
                row[norms] = {"attention_over_convolution": mean(x[norms]["attention_over_convolution"] for x in same)}
        layers.append(row)
    kept = ("version", "trainer", "configuration", "fold", "checkpoint", "patch_size", "spacing_mm", "share")
    content = {key: result[key] for key in kept} | {"cases": len(result["cases"]), "layers": layers}
    if (folder / "knock_out.json").is_file():
        study = json.loads((folder / "knock_out.json").read_text())
        content["knock_out"] = {key: value for key, value in study.items() if key not in ("model", "command")}
    return content


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    write_json(arguments.output, summary(arguments.folder))
