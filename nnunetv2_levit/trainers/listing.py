"""What trainers exist, for a person and for a script."""

from typing import Any

from nnunetv2_levit.trainers.naming import FAMILIES, register_other_packages


def list_trainers() -> dict[str, Any]:
    """The trainers of this package: the ``grammar`` of their names, and ``families`` by the first word of the name.

    A family is a dictionary of its ``summary``, ``sizes``, ``default_size``, ``options`` (from name to meaning, in the
    order in which a name has them) and ``epochs``. `trainer_class` makes a class of a name.
    """
    register_other_packages()
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


def trainers_text() -> str:
    """`list_trainers` for a person."""
    data = list_trainers()
    lines = [f"Names: {data['grammar']}", "Options in the order given below, each at most once.", ""]
    for name, family in data["families"].items():
        lines.append(f"{name}: {family['summary']}; {family['epochs']} epochs of 250 iterations unless named")
        sizes = [f"{size} (default)" if size == family["default_size"] else size for size in family["sizes"]]
        lines.append(f"  sizes: {', '.join(sizes) or 'none'}")
        lines.append("  options:" if family["options"] else "  options: none")
        lines += [f"    {option:<14}{summary}" for option, summary in family["options"].items()]
    return "\n".join(lines)
