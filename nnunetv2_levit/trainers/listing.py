"""What trainers exist, for a person and for a script."""

import json

from nnunetv2_levit.trainers.naming import FAMILIES


def as_data() -> dict:
    """Families with their sizes, options and the grammar of names."""
    return {
        "grammar": "<Family>Trainer[_<size>][_<option>]...[_<N>iterations][_<N>epochs]",
        "families": {
            f"{family.name}Trainer": {
                "summary": family.summary,
                "sizes": list(family.sizes),
                "default_size": family.default_size,
                "options": {option.name: option.summary for option in family.options},
                "epochs": family.recipe.num_epochs,
            }
            for family in FAMILIES.values()
        },
    }


def as_json() -> str:
    return json.dumps(as_data(), indent=2)


def as_text() -> str:
    data = as_data()
    lines = [f"Names: {data['grammar']}", "Options in the order given below, each at most once.", ""]
    for name, family in data["families"].items():
        lines.append(f"{name}: {family['summary']}; {family['epochs']} epochs of 250 iterations unless named")
        lines.append(f"  sizes: {', '.join(s + ' (default)' * (s == family['default_size']) for s in family['sizes'])}")
        lines.append("  options:")
        lines += [f"    {option:<12}{summary}" for option, summary in family["options"].items()]
    return "\n".join(lines)
