"""What a network's batch norms cost it at evaluation: pseudo Dice with running, batch and recalibrated statistics.

    python docs/lab/experiments/norm_modes.py --trainer LeViTUNetTrainer_128s_bf16 --fold 1 --budget-minutes 15 \\
        -o docs/lab/results/pocket/norm_modes.jsonl

Takes a training of `pocket_benchmark.py`, and the same random patches of the fold's validation patients each time:

- running: as nnU-Net evaluates, with the statistics gathered over the training;
- recalibrated: statistics gathered anew over training patches with the final weights;
- batch: with the statistics of each batch, as in training (drop path stays off).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from pocket_benchmark import enter_run
from pocket_prepare import CONFIGURATION, circumstances, end_loaders, make_trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from nnunetv2_levit.nnunet.environment import set_up_process


def mean_pseudo_dice(trainer, batches: list[dict]) -> float:
    """Dice over all pixels of all batches, averaged over the structures."""
    with torch.no_grad():
        outputs = [trainer.validation_step(batch) for batch in tqdm(batches, leave=False)]
    tp, fp, fn = (np.sum([output[key] for output in outputs], axis=0) for key in ("tp_hard", "fp_hard", "fn_hard"))
    return round(float(np.mean(2 * tp / (2 * tp + fp + fn))), 4)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def recalibrate(trainer, batches: int) -> None:
    """Gather the running statistics anew, as plain means over training batches."""
    norms = batch_norms(trainer.network)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad(), trainer._autocast():
        for _ in tqdm(range(batches), leave=False):
            trainer.network(next(trainer.dataloader_train)["data"])
    for norm in norms:
        norm.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--budget-minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    set_up_process()

    enter_run(arguments.trainer, f"{arguments.budget_minutes:g}min", arguments.fold, arguments.seed)
    trainer = make_trainer(arguments.trainer, CONFIGURATION, arguments.fold, "cpu")
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    np.random.seed(0)  # noqa: NPY002 - nnU-Net's loaders use it
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    batches = [next(trainer.dataloader_val) for _ in range(arguments.batches)]
    network = trainer.network.eval()
    result = {"running": mean_pseudo_dice(trainer, batches)}
    for norm in batch_norms(network):
        norm.train()
        norm.momentum = 0.0  # the running statistics stay
    result["batch"] = mean_pseudo_dice(trainer, batches)
    recalibrate(trainer, arguments.batches)
    result["recalibrated"] = mean_pseudo_dice(trainer, batches)
    row = {"trainer": arguments.trainer, "fold": arguments.fold, "budget_minutes": arguments.budget_minutes}
    row |= {"batches": arguments.batches, "pseudo_dice": result, **circumstances("cpu")}
    with arguments.output.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(result))
    end_loaders(trainer)


if __name__ == "__main__":
    main()
