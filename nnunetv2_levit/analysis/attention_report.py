"""What an attention analysis leaves on the disk: pictures of each case, numbers as JSON and CSV, and one HTML page."""

import re
from pathlib import Path
from typing import Any

from nnunetv2_levit import tables
from nnunetv2_levit.analysis.analysed_model import AnalysedModel
from nnunetv2_levit.analysis.case_slices import SKIPPED
from nnunetv2_levit.analysis.patch_analysis import PatchAnalysis
from nnunetv2_levit.evaluation.html_page import Picture, html_page
from nnunetv2_levit.figures import (
    Backdrop,
    colours_of,
    draw_gates,
    draw_knock_out,
    draw_layer_numbers,
    draw_maps,
)
from nnunetv2_levit.files import write_json, write_text, write_whole, written_together
from nnunetv2_levit.plain_text import markdown_text

NUMBERS, CSV, PAGE = "attention.json", "attention.csv", "attention.html"
KNOCK_OUT = "knock_out.json"

DEFINITIONS = {
    "distance": "sum over keys of weight x distance between the centres of query and key, mean over queries",
    "entropy": "entropy of a query's weights in nats, mean over queries",
    "outside_share": "share of the weights that lies outside the structure of the query; tokens belong to a structure "
    "by the share of their square that it covers",
    "branch_norms": "Euclidean norms of the two branches of a PI block where they are added",
    "uniform": "the same of attention that looks at every key alike",
    "untrained": "the same of the network with random weights (seed 0) on the same image",
}
WHAT_MAPS_SHOW = {
    False: "Each map shows which tokens the framed one looks at in that layer, averaged over the heads (softmax).",
    True: "Each map shows the framed token's raw scores in that layer, before the softmax, averaged over the heads.",
}
FLOW_CAPTION = (
    "Rollout and gradient-weighted relevance of each structure: rollout follows attention and residuals through all "
    "layers, relevance weights it with the gradient of the structure's logits."
)
WINDOW_FLOW_CAPTION = (
    "Gradient-weighted attention of each layer alone, at its true place: what its tokens contribute to the structure's "
    "logits. Windows are not rolled out through the layers."
)


def backdrop_of(analysis: PatchAnalysis, model: AnalysedModel) -> Backdrop:
    """The patch that maps are drawn over: its first channel, with the structures in their colours."""
    patch = analysis.patch
    row, column = model.spacing
    return Backdrop(patch.image[0], patch.masks, colours_of(list(model.structures)), row / column)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def write_pictures(analysis: PatchAnalysis, model: AnalysedModel, folder: Path, *, raw: bool) -> list[Picture]:
    """All pictures of one case, together, into its folder; with captions, in the order of the page."""
    patch, backdrop = analysis.patch, backdrop_of(analysis, model)
    names = [query.name for query in patch.queries]
    scale = "raw score (before the softmax)" if raw else "attention weight"
    written: list[tuple[str, str]] = []
    with written_together(folder) as partial:

        def draw(name: str, caption: str, function: Any, *arguments: Any, **keywords: Any) -> None:
            function(*arguments, **keywords, target=partial / name)
            written.append((name, caption))

        place = (
            f"{patch.case}, slice {patch.slice_index} of {patch.slices} (from 0), structures from the {patch.source}"
        )
        draw("maps.png", f"{place}. {WHAT_MAPS_SHOW[raw]}", draw_maps, analysis.maps, headings=names,
             backdrop=backdrop, scale=scale)  # fmt: skip
        if analysis.flow_maps:
            windows = analysis.flow_maps[0][0] not in ("rollout", "relevance")
            draw("flow.png", WINDOW_FLOW_CAPTION if windows else FLOW_CAPTION, draw_maps, analysis.flow_maps,
                 headings=[query.name for query in analysis.flow_queries], backdrop=backdrop,
                 scale="relevance" if windows else "share of the rollout, or relevance")  # fmt: skip
        for name, rows in analysis.head_maps.items():
            heads = max(len(maps) for _, maps in rows)
            draw(f"heads_{_file_name(name)}.png", f"Each head's attention from {name}.", draw_maps, rows,
                 headings=[f"head {head + 1}" for head in range(heads)], backdrop=backdrop, scale=scale)  # fmt: skip
        if analysis.gates:
            maps = [(gate.title, gate.values) for gate in analysis.gates if gate.kind != "channel"]
            channels = [(gate.title, gate.values) for gate in analysis.gates if gate.kind == "channel"]
            draw("gates.png", "What the gates let through, from 0 (closed) to 1 (open).", draw_gates, maps, channels,
                 backdrop=backdrop)  # fmt: skip
        draw("layers.png", "Numbers by layer: dots are heads, lines their means, dashed is uniform attention, dotted "
             "the untrained network.", draw_layer_numbers, analysis.layers,
             structures=list(patch.masks), colours=backdrop.colours)  # fmt: skip
    return [Picture(folder / name, caption) for name, caption in written]


def case_numbers(analysis: PatchAnalysis) -> dict[str, Any]:
    """One case for JSON."""
    patch = analysis.patch
    return {
        "case": patch.case,
        "slice": patch.slice_index,
        "slices": patch.slices,
        "patch_corner": list(patch.corner),
        "structures_from": patch.source,
        "structures_absent": patch.absent,
        "queries": [
            {"name": query.name, "place_px": list(query.place), "structure": query.structure} for query in patch.queries
        ],
        "layers": analysis.layers,
        "gates": [gate.numbers() for gate in analysis.gates],
    }


def write_knock_out(result: dict[str, Any], output: Path) -> list[str | Picture]:
    """The knock-out study as JSON, CSV and PNG; returns its part of the page."""
    write_json(output / KNOCK_OUT, result)
    write_text(output / "knock_out.csv", tables.knock_out_csv(result))
    picture = output / "knock_out.png"
    write_whole(picture, lambda target: draw_knock_out(result, target))
    lines = [f"## Which blocks are needed\n\n**{markdown_text(result['sentence'])}**"]
    lines.append(markdown_text(result["without_attention"][:1].upper() + result["without_attention"][1:]) + ".")
    if result["command"]:
        lines.append(f"    {result['command']}")
    if result["needs_fine_tuning"]:
        lines.append(
            "Truncated, this network has another decoder: fine-tune it before you compare it with these numbers."
        )
    mirrored = "with" if result["mirroring"] else "without"
    lines.append(
        f"{result['cases']} cases of {result['patients']} patients, {mirrored} mirrored copies. Intervals: 95 %, "
        f"patients resampled. Blocks may go while the interval stays above -{100 * result['margin']:g} points."
    )
    return ["\n\n".join(lines), Picture(picture, "Change of mean DSC and HD95"), tables.knock_out_markdown(result)]


def write_attention_report(
    result: dict[str, Any], pictures: dict[str, list[Picture]], output: Path, *, knock_out: list[str | Picture]
) -> None:
    """The numbers of all cases, and the page with their pictures."""
    write_json(output / NUMBERS, result)
    write_text(output / CSV, tables.attention_csv(result["cases"]))
    spacing = " × ".join(f"{size:.3g}" for size in result["spacing_mm"])
    patch = " × ".join(map(str, result["patch_size"]))
    parts: list[str | Picture] = [
        f"# Attention of {markdown_text(result['trainer'])}\n\nFold {result['fold']}, {result['checkpoint']}, "
        f"patches of {patch} pixels of {spacing} mm.",
        "## How much is transformer",
        tables.transformer_share_markdown(result["share"]),
        *([f"{SKIPPED}: {markdown_text(', '.join(result['skipped']))}."] if result["skipped"] else []),
        *knock_out,
        "## Attention by layer\n\nMeans over heads"
        + (f" and {len(result['cases'])} cases" if len(result["cases"]) > 1 else "")
        + ". A large distance means something only where it differs from uniform attention and the untrained network.",
        tables.attention_markdown(result["cases"]),
        "\n".join(f"- {name.replace('_', ' ')}: {text}" for name, text in result["definitions"].items()),
    ]
    for case, found in pictures.items():
        parts += [f"## {markdown_text(case)}", *found]
    write_text(output / PAGE, html_page(f"Attention of {result['trainer']}", parts))
