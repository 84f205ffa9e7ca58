"""`check_network`: every rule of the contract on one network, with the reason and the remedy where one is broken."""

import platform
from collections.abc import Collection, Mapping
from typing import Any

import torch
from tqdm import tqdm

from nnunetv2_levit.any_network.adaptation import SIZES, Adaptation, find_adaptation
from nnunetv2_levit.any_network.names import NamedNetwork, find_network, locate_class
from nnunetv2_levit.any_network.nnunet_class import why_not_direct
from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.network_architectures import REGISTRY
from nnunetv2_levit.network_architectures.layers.grids import Grid
from nnunetv2_levit.network_check.cost import cost_beside_nnunet
from nnunetv2_levit.network_check.rules import RULES, Broken, NotChecked, Rule
from nnunetv2_levit.network_check.subject import CLASSES, SIZE, Subject, images

KEPT, ADAPTED, BROKEN, NOT_CHECKED = "kept", "adapter", "broken", "not checked"
NAMES = ("constructor", "sizes", *RULES)
COST = "cost"


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
    tried = f"{len(SIZES) - len(adaptation.not_tried)} sizes from 32x32 to 1024x1024"
    if adaptation.not_tried:
        tried = f"{len(SIZES) - len(adaptation.not_tried)} sizes up to 256x256, as its shapes depend on numbers"
    reasons = adaptation.reasons()
    if not reasons:
        return _row("sizes", KEPT, tried)
    said = f"the adapter {' and '.join(reasons)}"
    if adaptation.failures:
        size, failure = next(iter(adaptation.failures.items()))
        said += f"; {len(adaptation.failures)} of {len(SIZES)} sizes fail without, {size[0]}x{size[1]} first ({failure})"
    return _row("sizes", ADAPTED, said)


def _checked(name: str, rule: Rule, subject: Subject) -> dict[str, Any]:
    try:
        return _row(name, KEPT, rule(subject))
    except Broken as broken:
        return _row(name, BROKEN, broken.seen, broken.remedy)
    except NotChecked as reason:
        return _row(name, NOT_CHECKED, str(reason))
    except Exception as error:  # a foreign network may raise anything
        return _row(name, BROKEN, f"it fails ({type(error).__name__}: {last_line(error)[:200]})", "mend forward")


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
        "broken", "not checked"), what was ``said`` and the ``remedy``, ``adapter`` (what it has to do) and ``cost``.

    Raises:
        UserError: the network can't be found, built or run at all.
    """
    _check_skipped(skip)
    network = find_network(name, settings)
    built = NetworkOfAnySize(
        lambda size: network.build(channels=1, classes=CLASSES, image_size=size),
        takes_image_size=network.takes_image_size,
    )
    with tqdm(total=len(NAMES) + 1, desc="checking", leave=False, disable=not progress) as bar:
        built(SIZE if not network.takes_image_size else (256, 256))  # whether it can be built is known first
        rows: list[dict[str, Any]] = []
        cost: dict[str, Any] | None = None
        adaptation: Adaptation | None = None
        try:
            adaptation = find_adaptation(built, channels=1, classes=CLASSES)
        except UserError as error:
            rows = [
                _constructor(network),
                _row("sizes", BROKEN, str(error), "let forward return logits as large as the image, of any size"),
                *(_row(rule, NOT_CHECKED, "the sizes come first") for rule in RULES),
            ]
        if adaptation is not None:
            subject = Subject(network, adaptation)
            rows = [_constructor(network), _sizes(adaptation)]
            subject.build()(images(1))
            for rule_name, rule in RULES.items():
                bar.update()
                bar.set_postfix_str(rule_name)
                if rule_name not in skip:
                    rows.append(_checked(rule_name, rule, subject))
            if COST not in skip:
                bar.set_postfix_str(COST)
                cost = cost_beside_nnunet(subject, patch_size)
    return {
        "kind": "network_check",
        "network": name,
        "target": network.target,
        "arguments": network.arguments,
        "kept": all(row["status"] != BROKEN for row in rows),
        "adapter": adaptation.reasons() if adaptation is not None else [],
        "rules": rows,
        "cost": cost,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def check_text(result: Mapping[str, Any]) -> str:
    """A result of `check_network` for a person: one line a rule."""
    lines = [f"{result['network']}: {result['target']}"]
    width = max(len(row["rule"]) for row in result["rules"])
    for row in result["rules"]:
        remedy = f"; remedy: {row['remedy']}" if row["remedy"] else ""
        lines.append(f"{row['status']:<12}{row['rule']:<{width + 2}}{row['said']}{remedy}")
    if result["cost"]:
        for entry in result["cost"]["rows"]:
            seconds = ", ".join(
                f"{entry['seconds_per_image'][mode] * 1e3:.0f} ms {mode}" if entry["seconds_per_image"][mode] else f"– {mode}"
                for mode in ("inference", "training")
            )
            patch = "x".join(map(str, result["cost"]["patch_size"]))
            lines.append(
                f"{'cost':<12}{entry['network']}: {entry['parameters'] / 1e6:.1f} M parameters, "
                f"{entry['gmac_per_image']:.1f} GMAC, {seconds} an image of {patch}, "
                f"{entry['training_gib'] * 1024:.0f} MiB a training step of batch {result['cost']['batch_size']} (counted)"
            )
    broken = [row["rule"] for row in result["rules"] if row["status"] == BROKEN]
    if broken:
        lines.append(f"broken: {', '.join(broken)}")
    else:
        how = "through the adapter" if any(row["status"] == ADAPTED for row in result["rules"]) else "as it is"
        lines.append(f"all rules are kept {how}: nnunetv2_levit configure -d ID --network {result['network']} …")
    return "\n".join(lines)
