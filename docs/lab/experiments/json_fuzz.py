"""Damaged JSON of every kind through the command that reads it, in numbers; fails on any exception or silent change.

python docs/lab/experiments/json_fuzz.py --mutations 300 -o outcomes.json
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tqdm import tqdm

from tests.support.json_fuzz import FAULTS, baseline, make, outcome, variables


def summary(outcomes: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Counts by kind, operation and outcome, and what was excluded or is a fault in full."""
    counts: dict[str, dict[str, Counter]] = {}
    for name, entries in outcomes.items():
        for entry in entries:
            counts.setdefault(name, {}).setdefault(entry["operation"], Counter())[entry["outcome"]] += 1
    told = {
        name: [entry for entry in entries if entry["outcome"] not in ("refused", "unchanged")]
        for name, entries in outcomes.items()
    }
    return {"outcomes": counts, "unseen and faults": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=300, help="of each kind (default 300)")
    parser.add_argument("--kinds", nargs="+", help="only those whose name contains one of these words")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of counts, exclusions and faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ.update(variables(root))
        kinds = make(root)
        if arguments.kinds:
            kinds = {name: kind for name, kind in kinds.items() if any(word in name for word in arguments.kinds)}
        outcomes = {}
        with tqdm(total=len(kinds) * arguments.mutations) as progress:
            for name, kind in kinds.items():
                document, expected = json.loads(kind.file.read_text()), baseline(kind)
                document = json.loads(kind.file.read_text())
                outcomes[name] = []
                for number in range(arguments.mutations):
                    outcomes[name].append(outcome(kind, document, number, expected))
                    progress.update()
    faults = 0
    for name, several in outcomes.items():
        print(f"{name}: {dict(Counter(entry['outcome'] for entry in several))}")
        for entry in several:
            if entry["outcome"] in FAULTS:
                faults += 1
                print("  ", json.dumps(entry), file=sys.stderr)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(summary(outcomes), indent=1) + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
