"""Directives that write tables of networks and trainers from the registry, so that no page lists them by hand.

``{networks-table}``, ``{trainers-table}`` and ``{trainer-options} LeViTUNetTrainer`` are parsed as Markdown.
"""

import torch
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nnunetv2_levit.network_architectures import REGISTRY, create
from nnunetv2_levit.trainers.listing import list_trainers
from nnunetv2_levit.trainers.naming import FAMILIES

CHANNELS, CLASSES, SIZE = 3, 9, (224, 224)


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]


def number_of_parameters(name: str) -> int:
    """Parameters of a registered network, built without memory for its weights."""
    with torch.device("meta"):
        network = create(name, in_channels=CHANNELS, num_classes=CLASSES, image_size=SIZE)
    return sum(parameter.numel() for parameter in network.parameters())


class RegistryTable(SphinxDirective):
    """Base: a subclass gives the lines."""

    def lines(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        container = nodes.container()
        self.state.nested_parse(StringList(self.lines(), source="registry"), self.content_offset, container)
        return container.children


class NetworksTable(RegistryTable):
    def lines(self) -> list[str]:
        trainers = {
            network: f"{family.name}Trainer" + (f"_{size}" if size != family.default_size else "")
            for family in FAMILIES.values()
            for size, network in family.sizes.items()
        }
        rows = [
            [f"`{name}`", f"{number_of_parameters(name):,}", f"`{trainers[name]}`" if name in trainers else "–"]
            for name in REGISTRY
        ]
        parameters = f"parameters ({CHANNELS} channels, {CLASSES} classes, {SIZE[0]} × {SIZE[1]})"
        return markdown_table(["name", parameters, "trainer of this size"], rows)


class TrainersTable(RegistryTable):
    def lines(self) -> list[str]:
        rows = [
            [
                f"`{name}`",
                family["summary"],
                ", ".join(
                    f"`{size}`" + (" (default)" if size == family["default_size"] else "") for size in family["sizes"]
                )
                or "–",
                str(family["epochs"]),
            ]
            for name, family in list_trainers()["families"].items()
        ]
        return markdown_table(["trainer", "network", "sizes", "epochs of 250 iterations"], rows)


class TrainerOptions(RegistryTable):
    required_arguments = 1

    def lines(self) -> list[str]:
        family = list_trainers()["families"].get(self.arguments[0])
        if family is None:
            raise self.error(f"there is no trainer family {self.arguments[0]}")
        return markdown_table(
            ["option", "meaning"], [[f"`_{name}`", summary] for name, summary in family["options"].items()]
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("networks-table", NetworksTable)
    app.add_directive("trainers-table", TrainersTable)
    app.add_directive("trainer-options", TrainerOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
