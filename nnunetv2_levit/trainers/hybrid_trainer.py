"""The base trainer: everything that nnU-Net needs of a foreign network, and nothing about a particular one."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.crossval_split import generate_crossval_split
from timm.utils.agc import adaptive_clip_grad
from torch import nn

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.errors import NonFiniteLossError, UserError
from nnunetv2_levit.files import read_json, write_json
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.nnunet.checkpoints import newest_checkpoint, trusted_by_environment
from nnunetv2_levit.nnunet.pretrained_weights import unwrapped
from nnunetv2_levit.trainers.augmentation import mirror_and_rotate_only
from nnunetv2_levit.trainers.boundary_weighted_loss import BoundaryWeightedLoss
from nnunetv2_levit.trainers.multi_scale import rescaled
from nnunetv2_levit.trainers.recipe import Recipe
from nnunetv2_levit.trainers.schedule import EpochSchedule
from nnunetv2_levit.trainers.seeding import make_repeatable_if_asked
from nnunetv2_levit.trainers.stop_signals import stop_when_asked
from nnunetv2_levit.trainers.weight_average import WeightAverage

EARLIER = "earlier_"
"""What the names of checkpoints of a training begin with that another one follows in its folder."""
PARTIAL = ".partial"
"""What the name of a checkpoint ends in while it is being written."""


class HybridTrainer(nnUNetTrainer):
    """Trains a registered network. A variant is a subclass that sets class attributes and overrides nothing.

    Attributes:
        network_name: a name of `network_architectures.REGISTRY`.
        only_2d: whether 3D configurations are refused.
        network_options: further keywords of its constructor.
        pretrained: sources of pretrained weights (timm tags or files), loaded when a training starts; None for none.
        truncated_name: from a number of transformer blocks to the name of the trainer with that many.
        recipe: optimizer, rates, clipping, augmentation and length.
        train_scales: factors of the patch size through which the training iterations pass in turn.
        num_epochs_override, num_iterations_override: what a trainer's name asks for.
    """

    network_name: ClassVar[str]
    only_2d: ClassVar[bool] = True
    network_options: ClassVar[dict[str, Any]] = {}
    pretrained: ClassVar[str | tuple[str, ...] | None] = None
    recipe: ClassVar[Recipe] = Recipe()
    truncated_name: ClassVar[Callable[[int], str]]
    train_scales: ClassVar[tuple[float, ...]] = (1.0,)
    num_epochs_override: ClassVar[int | None] = None
    num_iterations_override: ClassVar[int | None] = None

    # nnU-Net reads the names of these five arguments: no more, no others
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        self.check_name()
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.recipe.learning_rate
        self.weight_decay = self.recipe.weight_decay
        self.num_epochs = self.num_epochs_override or self.recipe.num_epochs
        if self.num_iterations_override:
            self.num_iterations_per_epoch = self.num_iterations_override
            self.num_val_iterations_per_epoch = max(1, self.num_iterations_override // 5)
        self.enable_deep_supervision = self.trains_all_outputs()
        self._iteration = 0
        self._weights_come_from_checkpoint = False
        self._average: WeightAverage | None = None
        if self.recipe.bf16:
            self.grad_scaler = None  # bf16 has the range of fp32
        make_repeatable_if_asked(self)
        stop_when_asked(self)

    @staticmethod
    def check_name() -> None:
        """Raise a UserError where this is a second name of a training (`naming` overrides it)."""

    @classmethod
    def trains_all_outputs(cls) -> bool:
        """Whether the network is trained with deep supervision."""
        return bool(cls.network_options.get("auxiliary_heads", False))

    @classmethod
    def build_network_architecture(  # the signature is nnU-Net's
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network for the configuration's patch size; also called, on the class, at prediction."""
        patch_size = tuple(configuration_manager.patch_size)
        if len(patch_size) != 2:
            raise UserError(
                f"{cls.__name__} trains 2D networks and this configuration has the 3D patch size {patch_size}: "
                "use the configuration 2d, or one made from it by `nnunetv2_levit configure`"
            )
        cls.check_network_of_plans(configuration_manager)
        network = create(
            cls.network_name,
            in_channels=num_input_channels,
            num_classes=num_output_channels,
            image_size=patch_size,
            **cls.network_options,
        )
        network.deep_supervision = enable_deep_supervision
        return network

    @classmethod
    def check_network_of_plans(cls, configuration_manager: Any) -> None:
        """Raise a UserError where `configure --network` chose a network that this trainer would not train."""
        if getattr(configuration_manager, "network_arch_class_name", None) == ADAPTER:
            raise UserError(
                f"{cls.__name__} trains a network of its own, and this configuration names another one "
                f"({configuration_manager.network_arch_init_kwargs.get('network')}): use a trainer of the plans' "
                "network, such as HybridRecipeTrainer or nnUNetTrainer, or another configuration"
            )

    def initialize(self) -> None:
        super().initialize()
        if self.pretrained is not None and not self._weights_come_from_checkpoint:
            report = unwrapped(self.network).load_pretrained(self.pretrained)
            self.print_to_log_file(f"Pretrained weights: {report.summary()}")
        if self.recipe.weight_average:
            iterations = self.recipe.weight_average * self.num_epochs * self.num_iterations_per_epoch
            self._average = WeightAverage(unwrapped(self.network), self.optimizer, iterations=iterations)

    def _set_batch_size_and_oversample(self) -> None:
        if self.recipe.batch_size is not None:
            # nnU-Net reads the global batch size from the configuration, and divides it among GPUs
            self.configuration_manager.configuration["batch_size"] = self.recipe.batch_size
        super()._set_batch_size_and_oversample()

    # deep supervision -------------------------------------------------------------------------------------------------

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        # nnU-Net's final validation switches it on afterwards, unasked
        unwrapped(self.network).deep_supervision = enabled and self.enable_deep_supervision

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        return [[scale, scale] for scale in unwrapped(self.network).deep_supervision_scales]

    def _build_loss(self) -> nn.Module:
        """The recipe's loss over as many outputs as the network has (each with a weight)."""
        supervised, self.enable_deep_supervision = self.enable_deep_supervision, False
        try:
            loss = super()._build_loss()
        finally:
            self.enable_deep_supervision = supervised
        loss.weight_ce, loss.weight_dice = self.recipe.weight_ce, self.recipe.weight_dice
        if self.recipe.loss == "boundary_weighted":
            loss = BoundaryWeightedLoss(
                regions=self.label_manager.has_regions, ignore_label=self.label_manager.ignore_label
            )
        if not supervised:
            return loss
        outputs = len(unwrapped(self.network).deep_supervision_scales)
        weights = np.array(self.recipe.output_weights or [0.5**index for index in range(outputs)])
        assert len(weights) == outputs  # nnU-Net would silently drop the outputs beyond
        return DeepSupervisionWrapper(loss, weights / weights.sum())

    # recipe -----------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer = self.recipe.build_optimizer(self.network)
        schedule = EpochSchedule(
            optimizer, num_epochs=self.num_epochs, decay=self.recipe.decay, warmup=self.recipe.warmup
        )
        return optimizer, schedule

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:  # noqa: N802
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.recipe.rotation_degrees is not None:
            rotation = tuple(float(angle) for angle in np.deg2rad(self.recipe.rotation_degrees))
        if not self.recipe.mirroring:  # as nnU-Net's nnUNetTrainerNoMirroring does
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """nnU-Net's augmentation; with the recipe's ``mirror_rotate`` no change of intensity, scale or resolution."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        if self.recipe.augmentation == "mirror_rotate":
            mirror_and_rotate_only(pipeline)
        return pipeline

    # training ---------------------------------------------------------------------------------------------------------

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split; where there is none yet it is written whole or not at all, as a kill would else break it.

        Raises:
            UserError: a fold that is not in ``splits_final.json``; nnU-Net would draw cases at random, patients parted.
        """
        splits = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        if self.fold != "all" and not splits.is_file():
            cases = sorted(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))
            write_json(splits, generate_crossval_split(cases, seed=12345, n_splits=5), indent=4)
        if self.fold != "all" and self.fold >= (number := len(read_json(splits, what="the folds of this dataset"))):
            raise UserError(f"there is no fold {self.fold}: {splits} has the folds 0 to {number - 1}")
        return super().do_split()

    def on_train_start(self) -> None:
        if self.local_rank == 0:
            for left_over in Path(self.output_folder).glob(f"checkpoint_*{PARTIAL}"):  # by a killed process
                left_over.unlink()
            if not self._weights_come_from_checkpoint and not self.disable_checkpointing:
                self._set_earlier_checkpoints_aside()
        super().on_train_start()

    def _set_earlier_checkpoints_aside(self) -> None:
        """Rename those of an earlier training: after an interruption of this one ``--c`` would go on from them."""
        for kind in ("final", "latest", "best"):
            path = Path(self.output_folder) / f"checkpoint_{kind}.pth"
            if path.is_file():
                aside = path.replace(path.with_name(f"{EARLIER}{path.name}"))
                self.print_to_log_file(f"{path.name} was of an earlier training: it is {aside.name} now")

    def on_train_epoch_start(self) -> None:
        self._iteration = 0
        super().on_train_epoch_start()

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step with the rate set per iteration, the recipe's clipping, and a stop at a non-finite loss."""
        self.lr_scheduler.step(self.current_epoch + self._iteration / self.num_iterations_per_epoch)
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [t.to(self.device, non_blocking=True) for t in target]
        else:
            target = target.to(self.device, non_blocking=True)
        if len(self.train_scales) > 1:
            scale = self.train_scales[self._iteration % len(self.train_scales)]
            data, target = rescaled(data, target, scale)

        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self.network(data)
            if not self.recipe.bf16:
                loss = self.loss(output, target)
        if self.recipe.bf16:  # sums over a batch need more than its 8 bits
            loss = self.loss(
                [o.float() for o in output] if isinstance(output, list | tuple) else output.float(), target
            )
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if self.recipe.adaptive_clip is not None:
            adaptive_clip_grad(self.network.parameters(), self.recipe.adaptive_clip)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

        value = loss.detach().cpu().numpy()  # the only synchronisation of a step, as in nnU-Net
        if not np.isfinite(value):
            raise self._non_finite_loss(float(value))
        self._iteration += 1
        if self._average is not None:
            self._average.update(self.current_epoch * self.num_iterations_per_epoch + self._iteration)
        return {"loss": value}

    def _autocast(self) -> AbstractContextManager:
        """nnU-Net's precision (fp16 on CUDA, fp32 elsewhere), or the recipe's bf16."""
        if self.recipe.bf16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _averaged_weights(self) -> AbstractContextManager:
        """Within it the network has the weights that are evaluated and saved."""
        return nullcontext() if self._average is None else self._average.in_place()

    def validation_step(self, batch: dict) -> dict:
        with self._averaged_weights():
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._averaged_weights():
            super().perform_actual_validation(save_probabilities)

    def _non_finite_loss(self, value: float) -> NonFiniteLossError:
        """What to raise at a loss that is no number, logged; the checkpoints are left as they are."""
        found = [
            name
            for name in ("checkpoint_latest.pth", "checkpoint_best.pth")
            if self.output_folder is not None and (Path(self.output_folder) / name).is_file()
        ]
        advice = (
            f"the last good checkpoint is {Path(self.output_folder) / found[0]}: resume with --c"
            if found
            else "no checkpoint had been written yet"
        )
        sentence = (
            f"the loss became {value} in epoch {self.current_epoch}, batch {self._iteration}, so the training "
            f"stops; {advice} (a lower learning rate, or checking the data for extreme values, may help)"
        )
        self.print_to_log_file(f"error: {sentence}", also_print_to_console=False)
        return NonFiniteLossError(sentence)

    # checkpoints ------------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """Write beside the target and rename, so that a killed process leaves the previous checkpoint whole."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # writes nothing, and says so
            return
        partial = f"{filename}{PARTIAL}"
        with self._averaged_weights():
            super().save_checkpoint(partial)
        os.replace(partial, filename)  # noqa: PTH105

    def load_checkpoint(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        filename_or_checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        """As nnU-Net's, for a file that runs no code unless it is trusted (see `checkpoints`).

        nnU-Net's ``--c`` takes the latest checkpoint, written every 50 epochs, though the best one may be newer. The
        file is called ``filename_or_checkpoint`` in nnU-Net 2.8 and ``checkpoint`` in its main branch.

        Raises:
            UserError: an unreadable file, one that may run code, or one of another network.
        """
        given = filename_or_checkpoint if checkpoint is None else checkpoint
        if given is None:
            raise TypeError("load_checkpoint needs a checkpoint")
        path = newest_checkpoint(Path(given), trust=trusted_by_environment())
        self._weights_come_from_checkpoint = True
        if not self.was_initialized:
            self.initialize()
        self.print_to_log_file(f"Loading {path}")
        try:
            super().load_checkpoint(str(path))
        except (RuntimeError, ValueError, KeyError) as error:  # weights or optimizer state of another network
            raise UserError(
                f"{path} does not fit {type(self).__name__}: {str(error).splitlines()[-1].strip()}"
            ) from error
