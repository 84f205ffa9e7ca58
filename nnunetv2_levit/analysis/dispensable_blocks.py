"""How many blocks may go by a knock-out study: the sentence that says so, and the command that takes them out."""

import shlex
from collections.abc import Sequence
from typing import Any

from nnunetv2_levit.nnunet.model_folder import FINAL_CHECKPOINT, checkpoint_flags


def _dice_text(row: dict[str, Any]) -> str:
    """The change of Dice in points, with its interval."""
    change = row["dice"]
    if change["mean"] is None:
        return "no Dice is defined"
    ends = change["ci95"]
    interval = f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else " (too few patients for an interval)"
    return f"{100 * change['mean']:+.1f} Dice{interval}"


def conclusion(
    rows: Sequence[dict[str, Any]],
    *,
    margin: float,
    several_stages: bool,
    model: str | None,
    checkpoint: str = FINAL_CHECKPOINT,
) -> dict[str, Any]:
    """How many of the last blocks (of the longest stage) may go, the sentence that says so, and the command for it.

    They may go as long as the lower end of Dice's interval (the mean, where too few patients make one) stays above
    minus ``margin``, without and with every smaller number. No command for a ``model`` of None.
    """
    cumulative = sorted(
        (row for row in rows if row["series"] == "cumulative" and row["what"] == "block"), key=lambda row: -row["kept"]
    )
    allowed = None
    for row in cumulative:
        change = row["dice"]
        bound = change["ci95"][0] if change["ci95"] else change["mean"]
        if bound is None or bound < -margin:
            break
        allowed = row

    if allowed is None:
        least = cumulative[0]
        without = f"with {least['title']}" if several_stages else "without the last block"
        return {
            "blocks_that_may_go": 0,
            "sentence": f"no block may go: {without}, {_dice_text(least)}",
            "command": None,
        }
    gone, kept = cumulative[0]["kept"] + 1 - allowed["kept"], allowed["kept"]
    if kept == 0:
        blocks = "all transformer blocks may go (truncate keeps 1)"
    elif several_stages:
        blocks = f"all but the first {f'{kept} blocks' if kept > 1 else 'block'} of each stage may go"
    else:
        blocks = f"the last {gone} blocks may go" if gone > 1 else "the last block may go"
    command = None
    if model is not None:
        words = ["truncate", "-m", model, "--blocks", str(max(1, kept)), "-o", f"{model}_truncated"]
        command = shlex.join(["nnunetv2_levit", *words, *checkpoint_flags(checkpoint)])
    return {"blocks_that_may_go": gone, "sentence": f"{blocks}: {_dice_text(allowed)}", "command": command}


def without_attention(rows: Sequence[dict[str, Any]]) -> str:
    """The sentence about the network whose blocks all attend to themselves alone (LeViT's subsamplings stay)."""
    (row,) = (row for row in rows if row["series"] == "cumulative" and row["what"] == "attention" and row["kept"] == 0)
    return f"with the attention of all blocks replaced by the identity, {_dice_text(row)}"
