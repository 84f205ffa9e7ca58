"""`check_network`: every rule of the contract on one network, with the reason and the remedy where one is broken."""

import platform
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from tqdm import tqdm

from nnunetv2_levit.any_network.adaptation import Adaptation, find_adaptation, usual_sizes
from nnunetv2_levit.any_network.names import NamedNetwork, find_network, locate_class
from nnunetv2_levit.any_network.nnunet_class import why_not_direct
from nnunetv2_levit.any_network.shapes import output_shapes
from nnunetv2_levit.benchmark.networks import check_patch
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.network_architectures import REGISTRY
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_check.cost import REFERENCE, cost_beside_nnunet
from nnunetv2_levit.network_check.rule import BrokenRuleError, NotCheckedError, RemarkError, Rule
from nnunetv2_levit.network_check.rules import COMPARING, RULES
from nnunetv2_levit.network_check.subject import CLASSES, SIZE, Subject

LARGE: Grid = (256, 256)
KEPT, ADAPTED, REMARK, BROKEN, NOT_CHECKED = "kept", "adapter", "remark", "broken", "not checked"
NAMES = ("constructor", "sizes", *RULES)
COST = "cost"
MODES = "in training and in evaluation"


def _row(rule: str, status: str, said: str, remedy: str | None = None) -> dict[str, Any]:
    return {"rule": rule, "status": status, "said": said, "remedy": remedy}


def _constructor(network: NamedNetwork) -> dict[str, Any]:
    """Whether plans can name the class itself."""
    if network.target in REGISTRY:
        return _row("constructor", ADAPTED, "a network of this package: plans name the adapter")
    why = why_not_direct(locate_class(network.target, name=network.name), network)
    if why is None:
        return _row("constructor", KEPT, "nnU-Net's own: plans name the class itself")
    return _row("constructor", ADAPTED, f"{why}: plans name the adapter")


def _sizes(adaptation: Adaptation) -> dict[str, Any]:
    sizes = len(usual_sizes(squares_only=adaptation.squares_only))
    tried = f"{sizes - len(adaptation.not_tried)} sizes from 32x32 to 1024x1024"
    if adaptation.not_tried:
        tried = f"{sizes - len(adaptation.not_tried)} sizes up to 256x256, as its shapes depend on numbers"
    reasons = adaptation.reasons()
    said = f"the adapter {' and '.join(reasons)}" if reasons else tried
    if adaptation.failures:
        size, failure = next(iter(adaptation.failures.items()))
        said += f"; {len(adaptation.failures)} of {sizes} sizes fail without, {size[0]}x{size[1]} first ({failure})"
    if adaptation.squares_only:
        remedy = "configure it with a square --patch, or let it take (height, width)"
        return _row("sizes", REMARK, f"square patches only; {said}", remedy)
    return _row("sizes", ADAPTED if reasons else KEPT, said)


def _checked(name: str, rule: Rule, subject: Subject) -> dict[str, Any]:
    try:
        return _row(name, KEPT, rule(subject))
    except RemarkError as remark:
        return _row(name, REMARK, remark.seen, remark.remedy)
    except BrokenRuleError as broken:
        return _row(name, BROKEN, broken.seen, broken.remedy)
    except NotCheckedError as reason:
        return _row(name, NOT_CHECKED, str(reason))
    except Exception as error:  # a foreign network may raise anything
        return _row(name, BROKEN, _failure(error), "mend forward")


def _failure(error: Exception) -> str:
    return f"it fails ({type(error).__name__}: {last_line(error)[:200]})"


def _broken(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [row["rule"] for row in rows if row["status"] == BROKEN]


def _nothing_runs(network: NamedNetwork, said: str) -> list[dict[str, Any]]:
    """Rows of a network that no adapter helps: where it gives logits at all, but not for images of one channel, it was
    made for another number of them."""
    first = "sizes"
    broken = _row(first, BROKEN, said, f"let forward return logits as large as the image, of any size, {MODES}")
    for channels in (1, 3, 2, 4):
        try:
            built = network.build(channels=channels, classes=CLASSES, image_size=LARGE)
            shapes = output_shapes(built, (2, channels, *LARGE))
        except Exception:  # a foreign network may raise anything
            continue
        if (2, CLASSES, *LARGE) in shapes.values():
            if channels == 1:
                break
            first = "channels and classes"
            remedy = "hand the number of channels to the first layer"
            broken = _row(first, BROKEN, f"images of {channels} channels alone give logits: {said}", remedy)
            break
    others = [name for name in ("sizes", *RULES) if name != first]
    return [broken, *(_row(name, NOT_CHECKED, f"the rule {first!r} comes first") for name in others)]


def _check_skipped(skip: Collection[str]) -> None:
    for name in skip:
        if name not in (*NAMES, COST):
            raise UserError(f"there is no rule {name!r} to skip: choose from {', '.join((*NAMES[2:], COST))}")
        if name in NAMES[:2]:
            raise UserError(f"the rule {name!r} can't be skipped: all others build on it")


def check_network(
    name: str,
    *,
    settings: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
    patch_size: Grid = (224, 224),
    progress: bool = False,
) -> dict[str, Any]:
    """Check what nnU-Net, its trainers and this package's predictor expect of a 2D network.

    Args:
        name: of a registered network, ``package.module:Class``, ``smp:MODEL[/ENCODER]``, ``timm:ENCODER`` or
            ``monai:CLASS``.
        settings: arguments of its constructor.
        skip: names of rules that are left out, "cost" among them.
        patch_size: height and width in pixels for which time, memory and multiply-adds are compared.

    Returns:
        ``kept`` (no rule is broken), ``rules`` with a ``status`` each ("kept", "adapter": by means of the adapter,
        "remark": nnU-Net trains and predicts all the same, "broken", "not checked"), what was ``said`` and the
        ``remedy``, ``adapter`` (what it has to do) and ``cost``.

    Raises:
        UserError: the network can't be found or built, a rule to skip is unknown, or nnU-Net would not plan the patch.
    """
    _check_skipped(skip)
    if COST not in skip:
        check_patch(REFERENCE, patch_size)
    network = find_network(name, settings)
    built = network.of_any_size(channels=1, classes=CLASSES)
    with tqdm(total=len(NAMES) + 1, desc="checking", leave=False, disable=not progress) as bar:
        built(SIZE if not network.takes_image_size else LARGE)  # whether it can be built is known first
        rows: list[dict[str, Any]] = []
        cost: dict[str, Any] | None = None
        adaptation: Adaptation | None = None
        try:
            adaptation = find_adaptation(built, channels=1, classes=CLASSES)
        except UserError as error:
            rows = [_constructor(network), *_nothing_runs(network, str(error))]
        if adaptation is not None:
            subject = Subject(network, adaptation)
            rows = [_constructor(network), _sizes(adaptation)]
            for rule_name, rule in RULES.items():
                bar.update()
                bar.set_postfix_str(rule_name)
                if rule_name in skip:
                    continue
                if rule_name in COMPARING and "repeatable" in _broken(rows):
                    rows.append(_row(rule_name, NOT_CHECKED, "the logits are not repeatable"))
                else:
                    rows.append(_checked(rule_name, rule, subject))
            if COST not in skip:
                bar.set_postfix_str(COST)
                try:
                    cost = cost_beside_nnunet(subject, patch_size)
                except Exception as error:  # a foreign network may raise anything, and what was checked counts
                    rows.append(_row(COST, NOT_CHECKED, _failure(error)))
    return {
        "kind": "network_check",
        "network": name,
        "target": network.target,
        "arguments": network.arguments,
        "kept": not _broken(rows),
        "adapter": adaptation.reasons() if adaptation is not None else [],
        "rules": rows,
        "cost": cost,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cost_lines(cost: Mapping[str, Any]) -> list[str]:
    lines = []
    patch = "x".join(map(str, cost["patch_size"]))
    for entry in cost["rows"]:
        times = [
            f"{seconds * 1e3:.0f} ms {mode}"
            for mode, seconds in entry["seconds_per_image"].items()
            if seconds is not None
        ]
        gib = entry["training_gib"]
        memory = "not counted" if gib is None else f"{gib * 1024:.0f} MiB counted"
        gmac = entry["gmac_per_image"]
        work = "multiply-adds not counted" if gmac is None else f"{gmac:.1f} GMAC"
        size = f"{entry['parameters'] / 1e6:.1f} M parameters, {work}"
        timed = ", ".join(times) or "no time"
        lines.append(
            f"{COST:<12}{entry['network']}: {size} and {timed} an image of {patch} on this CPU; a training step of "
            f"batch {cost['batch_size']} on a GPU: {memory}"
        )
    return lines


def check_text(result: Mapping[str, Any]) -> str:
    """A result of `check_network` for a person: one line a rule."""
    lines = [f"{result['network']}: {result['target']}"]
    width = max(len(row["rule"]) for row in result["rules"])
    for row in result["rules"]:
        remedy = f"; remedy: {row['remedy']}" if row["remedy"] else ""
        lines.append(f"{row['status']:<12}{row['rule']:<{width + 2}}{row['said']}{remedy}")
    if result["cost"]:
        lines += _cost_lines(result["cost"])
    if broken := _broken(result["rules"]):
        lines.append(f"broken: {', '.join(broken)}")
    else:
        how = "through the adapter" if any(row["status"] == ADAPTED for row in result["rules"]) else "as it is"
        if any(row["status"] == REMARK for row in result["rules"]):
            how += ", with remarks"
        lines.append(f"all rules are kept {how}: nnunetv2_levit configure -d ID --network {result['network']} …")
    return "\n".join(lines)
