"""nnU-Net's predictor with batched inference for 2D configurations; all others are predicted by nnU-Net itself."""

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import nn
from torch._dynamo import OptimizedModule

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import write_text
from nnunetv2_levit.inference.backends import Backend, TorchBackend
from nnunetv2_levit.inference.batching import BatchRunner, release_cached_memory
from nnunetv2_levit.inference.case_files import Case, cases_for, select
from nnunetv2_levit.inference.onnx_backend import OnnxBackend, to_onnx
from nnunetv2_levit.inference.pipeline import Preparation, one_line, pipeline
from nnunetv2_levit.inference.sliding_window import SlidingWindow
from nnunetv2_levit.nnunet.trained_model import input_channels, load_trained_model

Folds = Sequence[int | str]


class BatchedPredictor(nnUNetPredictor):
    """Same calls and results as nnUNetPredictor; 2D volumes go through the network in batches.

    Attributes:
        accumulator: precision of the sums over windows and folds, fp16 as in nnU-Net (so that labels are the same even
            where two classes come within its rounding) or fp32 (so that logits are as exact as the network's). Sums
            that overflow fp16, at which nnU-Net stops, are computed again in fp32.
        backend: "torch", or "onnx" for ONNX Runtime on the CPU.
        backends: one for each fold; made by `make_backend` at the first prediction unless set by the caller.
        runner: holds the batch size; give it one for a fixed size.
        trust_checkpoint: load checkpoints and plans that may run code (see `checkpoints` and `network_classes`).
    """

    def __init__(
        self,
        *args: Any,
        accumulator: torch.dtype = torch.half,
        backend: str = "torch",
        trust_checkpoint: bool = False,
        **kwargs: Any,
    ) -> None:
        with redirect_stdout(StringIO()):  # nnU-Net remarks on every device but CUDA's
            super().__init__(*args, **kwargs)
        self.trust_checkpoint = trust_checkpoint
        self.accumulator, self.backend = accumulator, backend
        self.backends: list[Backend] | None = None
        self.runner = BatchRunner(self.device)

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Folds | str | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """As nnU-Net's.

        Raises:
            UserError: a missing file, a checkpoint that is unreadable or may run code, an unknown trainer, or weights
                that don't fit.
        """
        if use_folds is None:
            use_folds = self.auto_detect_available_folds(model_training_output_dir, checkpoint_name)
        folds = [use_folds] if isinstance(use_folds, str) else list(use_folds)
        trained = load_trained_model(
            model_training_output_dir,
            folds=folds,
            checkpoint=checkpoint_name,
            trust_checkpoint=self.trust_checkpoint,
        )
        self.manual_initialization(
            trained.network,
            trained.plans,
            trained.configuration,
            [fold.weights for fold in trained.folds],
            trained.dataset,
            trained.trainer_name,
            trained.mirror_axes,
        )
        if self.is_batched:
            # autotuning, which nnU-Net switches on, would start anew for each number of slices
            torch.backends.cudnn.benchmark = False

    def manual_initialization(self, *args: Any, **kwargs: Any) -> None:
        super().manual_initialization(*args, **kwargs)
        self.backends = None

    @property
    def is_batched(self) -> bool:
        """Whether this is a 2D configuration without a previous stage."""
        configuration = self.configuration_manager
        return len(configuration.patch_size) == 2 and configuration.previous_stage_name is None

    def make_backend(self, network: nn.Module) -> Backend:
        """The back-end of one fold, whose weights ``network`` holds only until this returns."""
        channels = input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        patch_size = tuple(self.configuration_manager.patch_size)
        if self.backend == "onnx":
            return OnnxBackend(to_onnx(network, in_channels=channels, image_size=patch_size))
        images = torch.randn(1, channels, *patch_size, device=next(network.parameters()).device)
        compiled = isinstance(self.network, OptimizedModule)
        return TorchBackend(network, device=self.device, compiled=compiled, try_on=images)

    def _make_backends(self) -> list[Backend]:
        network = self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network
        backends = []
        for parameters in self.list_of_parameters or [network.state_dict()]:
            try:
                network.load_state_dict(parameters)
            except RuntimeError as error:
                raise UserError(f"the folds are not of the same network: {one_line(error)}") from error
            backends.append(self.make_backend(network.eval()))
        return backends

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """Mean of the folds' logits (K, D, H, W), in the computer's memory, of a preprocessed volume (C, D, H, W)."""
        if not self.is_batched:
            return super().predict_logits_from_preprocessed_data(data)
        if self.backends is None:
            self.backends = self._make_backends()
        logits = self._mean_logits(self.backends, data, self.accumulator)
        if self.accumulator == torch.half and not torch.isfinite(logits).all():
            logits = self._mean_logits(self.backends, data, torch.float32)
        return logits

    @torch.inference_mode()
    def _mean_logits(self, backends: Sequence[Backend], data: torch.Tensor, accumulator: torch.dtype) -> torch.Tensor:
        window = SlidingWindow(
            patch_size=tuple(self.configuration_manager.patch_size),
            num_classes=self.label_manager.num_segmentation_heads,
            step_size=self.tile_step_size,
            use_gaussian=self.use_gaussian,
            mirror_axes=self.allowed_mirroring_axes if self.use_mirroring else None,
            runner=self.runner,
            results_on_device=self.perform_everything_on_device,
            accumulator=accumulator,
        )
        total = window.logits(backends[0], data)
        for backend in backends[1:]:
            total += window.logits(backend, data)
        if len(backends) > 1:
            total /= len(backends)
        if self.verbose:
            print(
                f"volume {tuple(data.shape)}, patch {window.patch_size}, step {self.tile_step_size}, mirrored along "
                f"{window.mirror_axes}, {self.runner.batch_size} images at once, {len(backends)} folds"
            )
        return total

    def predict_from_files(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int = default_num_processes,
        num_processes_segmentation_export: int = default_num_processes,
        folder_with_segs_from_prev_stage: str | None = None,
        num_parts: int = 1,
        part_id: int = 0,
    ) -> list[None]:
        """As nnU-Net's; 0 processes work in this one.

        Raises:
            UserError: unusable input or output, before anything is computed.
            FailedCasesError: at the end, if some cases could not be read, predicted or written.
        """
        source, target = list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files
        if not self.is_batched or target is None:
            return super().predict_from_files(
                source,
                target,
                save_probabilities,
                overwrite,
                num_processes_preprocessing,
                num_processes_segmentation_export,
                folder_with_segs_from_prev_stage,
                num_parts,
                part_id,
            )
        output = Path(target) if isinstance(target, str) else Path(target[0]).parent
        ending = self.dataset_json["file_ending"]
        cases = self._cases(source, target, output)
        arguments = {  # nnU-Net's names
            "list_of_lists_or_source_folder": source,
            "output_folder_or_list_of_truncated_output_files": target,
            "save_probabilities": save_probabilities,
            "overwrite": overwrite,
            "num_processes_preprocessing": num_processes_preprocessing,
            "num_processes_segmentation_export": num_processes_segmentation_export,
            "folder_with_segs_from_prev_stage": folder_with_segs_from_prev_stage,
            "num_parts": num_parts,
            "part_id": part_id,
        }
        self._write_description(output, arguments)
        cases = select(
            cases,
            file_ending=ending,
            part=part_id,
            parts=num_parts,
            only_missing=not overwrite,
            probabilities=save_probabilities,
        )
        self._run(cases, save_probabilities, num_processes_preprocessing, num_processes_segmentation_export)
        return [None] * len(cases)

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | None = None,
    ) -> list:
        """As nnU-Net's, without any other process."""
        source, target = list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files
        if self.is_batched and target is not None:
            return self.predict_from_files(source, target, save_probabilities, overwrite, 0, 0)
        return super().predict_from_files_sequential(
            source, target, save_probabilities, overwrite, folder_with_segs_from_prev_stage
        )

    def _cases(self, source: str | list[list[str]], target: str | list[str], output: Path) -> list[Case]:
        """Cases of a folder, or of lists of files; named by their files, or as ``target`` lists them."""
        ending = self.dataset_json["file_ending"]
        if isinstance(source, str):
            cases = cases_for(self.plans_manager.image_reader_writer_class, self.dataset_json, Path(source), output)
        else:
            cases = []
            for files in source:
                name = Path(files[0]).name[: -len(f"_0000{ending}")]
                cases.append(Case(name, tuple(map(Path, files)), output / name))
        if isinstance(target, str):
            return cases
        if len(target) != len(cases):
            raise UserError(f"{len(target)} output names were given for {len(cases)} cases")
        return [Case(Path(name).name, case.channels, Path(name)) for case, name in zip(cases, target, strict=True)]

    def _write_description(self, output: Path, arguments: dict[str, Any]) -> None:
        """The three files that nnU-Net's postprocessing and a later reader look for."""
        contents = {
            "predict_from_raw_data_args.json": arguments,
            "dataset.json": self.dataset_json,
            "plans.json": self.plans_manager.plans,
        }
        for name, content in contents.items():
            write_text(output / name, json.dumps(content, indent=4, default=str))

    def _run(self, cases: Sequence[Case], save_probabilities: bool, preprocessing: int, exporting: int) -> None:
        if not cases:
            return
        preparation = Preparation(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            save_probabilities,
            self.verbose_preprocessing,
        )
        try:
            with pipeline(
                preparation,
                preprocessing_workers=min(preprocessing, len(cases)),
                exporting_workers=min(exporting, len(cases)),
                show_progress=self.allow_tqdm,
            ) as stages:
                stages.run(self.predict_logits_from_preprocessed_data, cases)
        finally:
            compute_gaussian.cache_clear()
            release_cached_memory(self.device)
