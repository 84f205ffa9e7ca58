"""A trained model as this room looks into it: the network of one fold, its structures, and its plain prediction."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.backends import Backend
from nnunetv2_levit.inference.batching import BatchRunner
from nnunetv2_levit.inference.pipeline import Preparation
from nnunetv2_levit.inference.sliding_window import SlidingWindow
from nnunetv2_levit.nnunet.dataset_description import structures_of
from nnunetv2_levit.nnunet.trained_model import TrainedModel, build_network, load_trained_model

IMAGES_AT_ONCE = 2


@dataclass(frozen=True)
class AnalysedModel:
    """One fold of a trained 2D model on a device, in fp32 as trained: nothing is folded, fused or halved.

    Attributes:
        structures: label values by name; of regions, all that belong to one.
        ignored: the ignore label, if there is one.
    """

    trained: TrainedModel
    fold: int | str
    device: torch.device
    structures: dict[str, tuple[int, ...]]
    ignored: int | None

    @property
    def network(self) -> nn.Module:
        """The trained network; that within the adapter, where patches go through the adapter as they are."""
        return _without_adapter(self.trained.network, self.patch_size)

    @property
    def patch_size(self) -> tuple[int, int]:
        height, width = self.trained.patch_size
        return height, width

    @property
    def spacing(self) -> tuple[float, float]:
        """The plan's, in mm, (row, column)."""
        row, column = self.trained.configuration.spacing[-2:]
        return float(row), float(column)

    @property
    def preparation(self) -> Preparation:
        """What reads and preprocesses cases as for prediction."""
        trained = self.trained
        return Preparation(trained.plans, trained.configuration, trained.dataset)

    @cached_property
    def checkpoint_digest(self) -> str:
        """SHA-256 of the checkpoint file."""
        digest = hashlib.sha256()
        with (self.trained.path / f"fold_{self.fold}" / self.trained.checkpoint).open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
        return digest.hexdigest()

    def untrained_network(self) -> nn.Module:
        """The same network with random weights (seed 0), in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_network(
                self.trained.trainer,
                plans=self.trained.plans,
                configuration=self.trained.configuration,
                in_channels=self.trained.in_channels,
                num_classes=self.trained.labels.num_segmentation_heads,
            )
        return _without_adapter(network.eval().to(self.device), self.patch_size)

    def head_of(self, structure: str) -> int:
        """Output channel of a structure: nnU-Net has one for each label, or for each region."""
        if self.trained.labels.has_regions:
            return list(self.structures).index(structure)
        return self.trained.labels.all_labels.index(self.structures[structure][0])

    def window(self, *, mirroring: bool = False, step_size: float = 0.5) -> SlidingWindow:
        """nnU-Net's sliding window, summed in fp32."""
        return SlidingWindow(
            patch_size=self.patch_size,
            num_classes=self.trained.labels.num_segmentation_heads,
            step_size=step_size,
            use_gaussian=True,
            mirror_axes=self.trained.mirror_axes if mirroring else None,
            runner=BatchRunner(self.device, IMAGES_AT_ONCE),
            results_on_device=False,
            accumulator=torch.float32,
        )

    def compute(self, images: Tensor) -> Tensor:
        """The network as a back-end of `SlidingWindow`."""
        with torch.inference_mode():
            logits: Tensor = self.network(images)
        return logits

    def predicted_masks(self, volume: np.ndarray, backend: Backend | None = None) -> dict[str, np.ndarray]:
        """Structures (D, H, W) that the network predicts in a preprocessed volume (C, D, H, W)."""
        logits = self.window().logits(backend or self.compute, torch.from_numpy(volume))
        labels = np.asarray(self.trained.labels.convert_logits_to_segmentation(logits))
        return self.masks(labels)

    def masks(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Of a label map one mask for each structure."""
        return {name: np.isin(labels, values) for name, values in self.structures.items()}


def _without_adapter(network: nn.Module, patch_size: tuple[int, int]) -> nn.Module:
    """The network that computes the same logits of patches without deep supervision."""
    if isinstance(network, AdaptedNetwork) and not network.is_needed(patch_size):
        return network.network
    return network


def load_analysed_model(
    model: str | Path,
    *,
    fold: int | str = 0,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    trust_checkpoint: bool = False,
    purpose: str = "looked into",
) -> AnalysedModel:
    """Load one fold of a trained-model folder.

    Raises:
        UserError: no readable trained model, a 3D model, or no such device.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"the device {device!r} is unknown: choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    trained = load_trained_model(Path(model), folds=(fold,), checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    trained.require_2d(purpose)
    trained.network.to(device)
    structures, ignored = structures_of(trained.dataset)
    return AnalysedModel(trained, fold, torch.device(device), structures, ignored)
