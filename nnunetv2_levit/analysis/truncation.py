"""A trained model with fewer transformer blocks, made of the trained one's first (Petitjean, Hasany, Meriaudeau 2023).

The trained-model folder is read as nnU-Net reads it for prediction. Every tensor that the smaller network shares with
the trained one by name and shape is taken over; what has another shape there is initialised anew, and named.
"""

import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.benchmark.measure import multiply_adds
from nnunetv2_levit.benchmark.timing import interleaved
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import check_writable, replaced_at_the_end, write_json
from nnunetv2_levit.nnunet.model_folder import check_checkpoint_name, checkpoint_flags, read_model_folder
from nnunetv2_levit.nnunet.trained_model import TrainedModel, build_network, load_trained_model
from nnunetv2_levit.nnunet.trainer_classes import find_trainer_class

REPORT = "truncation.json"
ADVICE = "remove it or choose another folder"
COPIED = ("plans.json", "dataset.json", "dataset_fingerprint.json")


def trained_folds(model: Path, checkpoint: str) -> list[str]:
    """Names of the folds of a trained-model folder that have this checkpoint, without ``fold_``.

    Raises:
        UserError: there is none, or the folder is no trained-model folder.
    """
    check_checkpoint_name(checkpoint)
    names = (path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{checkpoint}"))
    folds = sorted(name for name in names if name == "all" or name.isdecimal())
    if not folds:
        read_model_folder(model, (), checkpoint)
        raise UserError(f"{model} has no fold with a {checkpoint}: name another checkpoint with -chk")
    return folds


def truncated_trainer(trained: TrainedModel, blocks: int) -> str:
    """Name of the trainer whose network has ``blocks`` blocks.

    Raises:
        UserError: the network is not the trainer's own, or has not that many blocks.
    """
    if isinstance(trained.network, AdaptedNetwork):
        network = type(trained.network.network).__name__
        raise UserError(
            f"the plans name the network {network}, not the trainer {trained.trainer_name}, and a model is shortened "
            "by its trainer's name: give a model of a trainer with a network (`nnunetv2_levit trainers` lists them)"
        )
    truncated_name = getattr(trained.trainer, "truncated_name", None)
    if truncated_name is None:
        raise UserError(f"{trained.trainer_name} is no trainer of this package: it has no transformer blocks to count")
    name: str = truncated_name(blocks)
    return name


def _truncated_network(trained: TrainedModel, blocks: int) -> tuple[str, nn.Module]:
    """Name of the trainer with ``blocks`` blocks, and its network, initialised anew."""
    name = truncated_trainer(trained, blocks)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(
            find_trainer_class(name),
            plans=trained.plans,
            configuration=trained.configuration,
            in_channels=trained.in_channels,
            num_classes=trained.labels.num_segmentation_heads,
        )
    return name, network


def transfer(trained: dict[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """State dict for ``network`` with all that fits from ``trained``, and the names of what does not fit."""
    state = network.state_dict()
    fresh = [name for name, value in state.items() if name not in trained or trained[name].shape != value.shape]
    kept = {name: value if name in set(fresh) else trained[name] for name, value in state.items()}
    return kept, fresh


def cost(networks: dict[str, nn.Module], images: Tensor, *, repetitions: int = 5) -> dict[str, dict[str, float]]:
    """Parameters, multiply-adds and images per second of each network, timed in turn so that the ratio is fair."""

    def forward(network: nn.Module) -> None:
        with torch.no_grad():
            network(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    steps = {name: partial(forward, network) for name, network in networks.items()}
    seconds = interleaved(steps, repetitions=repetitions)
    return {
        name: {
            "parameters": sum(p.numel() for p in network.parameters()),
            "gmac_per_image": round(multiply_adds(network, images[:1]) / 1e9, 3),
            "images_per_second": round(len(images) / seconds[name], 3),
        }
        for name, network in networks.items()
    }


def _write_folder(
    folder: Path, *, trained: TrainedModel, states: list[dict[str, Tensor]], trainer: str, progress: bool
) -> None:
    """A trained-model folder of new weights, with the plans of the old one."""
    for file in COPIED:
        if (trained.path / file).is_file():
            shutil.copy(trained.path / file, folder / file)
    for fold, state in zip(tqdm(trained.folds, desc="writing folds", disable=not progress), states, strict=True):
        (folder / f"fold_{fold.name}").mkdir()
        content = {
            "network_weights": state,
            "init_args": fold.init_args,
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": fold.mirror_axes,
        }
        torch.save(content, folder / f"fold_{fold.name}" / trained.checkpoint)


def truncate(
    model: str | Path,
    *,
    blocks: int,
    output: str | Path,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    trust_checkpoint: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a trained-model folder whose networks have ``blocks`` transformer blocks (in each stage, where there are
    stages); returns the report that is also written into it as truncation.json.

    Every fold with ``checkpoint`` is converted. The new checkpoints hold what prediction and ``-pretrained_weights``
    read; the state of the optimizer and the log stay behind, so that a training can't be resumed from them.

    Raises:
        UserError: no readable trained model, a network without that many blocks to leave out, no such device, or
            ``output`` exists.
    """
    model, output = Path(model), Path(output)
    if output.exists():
        raise UserError(f"{output} exists already: {ADVICE}")
    check_writable(output)
    if blocks < 1:
        raise UserError(f"a network keeps at least 1 transformer block, not {blocks}: give --blocks 1 or more")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    folds = trained_folds(model, checkpoint)
    trained = load_trained_model(model, folds=folds, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    trainer, network = _truncated_network(trained, blocks)
    before, after = (sum(p.numel() for p in n.parameters()) for n in (trained.network, network))
    if after >= before:
        raise UserError(f"{trained.trainer_name} has no more than {blocks} transformer blocks (in any stage)")
    transfers = [transfer(fold.weights, network) for fold in trained.folds]
    fresh = transfers[0][1]
    networks = {"before": trained.network, "after": network}
    report = {
        "model": str(model),
        "blocks": blocks,
        "folds": folds,
        "trainer_before": trained.trainer_name,
        "trainer_after": trainer,
        "patch_size": list(trained.patch_size),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "tensors_taken_over": len(transfers[0][0]) - len(fresh),
        "tensors_initialised_anew": fresh,
    }
    with replaced_at_the_end(output, overwrite=False, advice=ADVICE) as partial:
        states = [state for state, _ in transfers]
        _write_folder(partial, trained=trained, states=states, trainer=trainer, progress=progress)
        images = torch.randn(1, trained.in_channels, *trained.patch_size, device=device)
        report |= cost({key: value.to(device).eval() for key, value in networks.items()}, images)
        write_json(partial / REPORT, report)
    return report


def as_text(report: dict[str, Any], output: Path) -> str:
    """The report for a person, with the next commands."""
    rows = [("parameters (M)", "parameters", 1e6), ("GMAC per image", "gmac_per_image", 1)]
    rows.append(("images per second", "images_per_second", 1))
    lines = [
        f"{report['trainer_before']} -> {report['trainer_after']}, patch {report['patch_size']}, {report['device']}"
    ]
    for label, key, unit in rows:
        old, new = report["before"][key], report["after"][key]
        lines.append(f"  {label:<18} {old / unit:10.2f} -> {new / unit:10.2f}   ({100 * (new / old - 1):+.1f} %)")
    fresh = report["tensors_initialised_anew"]
    lines.append(f"  {report['tensors_taken_over']} tensors taken over, {len(fresh)} initialised anew")
    if fresh:
        lines.append(f"  anew, as their shape differs: {', '.join(fresh)}")
        lines.append("  so the model needs fine-tuning before its predictions mean anything")
    checkpoint = next((output / f"fold_{report['folds'][0]}").glob("*.pth"))
    trainer = report["trainer_after"].replace("_pretrained", "")  # ImageNet's weights would only be overwritten
    predict = ["-m", str(output), "-i", "IMAGES", "-o", "PREDICTIONS", "-f", *report["folds"]]
    train = ["DATASET", "CONFIGURATION", "FOLD", "-tr", trainer, "-pretrained_weights", str(checkpoint)]
    lines += [
        f"predict:   nnUNetv2_predict_from_modelfolder {shlex.join([*predict, *checkpoint_flags(checkpoint.name)])}",
        f"fine-tune: nnunetv2_levit train {shlex.join(train)}",
    ]
    return "\n".join(lines)
