"""Everything of nnU-Net that this package relies on and that nnU-Net does not promise to keep: one row each.

nnU-Net has no public interface beside its commands, so this lists every function and class that is imported, every
attribute of its trainer and predictor that is read or set, every method that is overridden, every function that is
replaced and every rule that was copied. ``tests/nnunet/test_private_names.py`` walks the rows with `what_changed`, so
that another version of nnU-Net names what to look at, and checks that the package uses nothing that has no row.
"""

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from enum import Enum
from typing import Any

TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"
PREDICTOR = "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor"
PLANS = "nnunetv2.utilities.plans_handling.plans_handler"


class Use(Enum):
    """How the package relies on something of nnU-Net's."""

    CALLED = "called, read or set"
    OVERRIDDEN = "overridden"
    REPLACED = "replaced by `replacements.install`"
    COPIED = "a rule that is written down again in this package"


@dataclass(frozen=True)
class Row:
    """One name of nnU-Net's.

    Attributes:
        name: importable path of a module's member, or of a class's.
        reason: what this package does with it, and where.
        parameters: the names of its parameters, as one text; of several versions where they are known to differ.
        says: pieces of its source code that the package relies on.
        digest: of its source code, where all of it was copied (see `digest_of`).
    """

    name: str
    use: Use
    reason: str
    parameters: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    digest: str | None = None


def _attributes(owner: str, reason: str, *assignments: str) -> Row:
    """Attributes that a class's constructor sets."""
    return Row(f"{owner}.__init__", Use.CALLED, reason, says=assignments)


TRAINER_ROWS = (
    Row(
        TRAINER,
        Use.CALLED,
        "the base class of HybridTrainer; its constructor reads the names of its subclass's parameters",
        parameters=("plans, configuration, fold, dataset_json, device",),
    ),
    _attributes(
        TRAINER,
        "HybridTrainer sets these from its recipe and its name",
        "self.initial_lr =",
        "self.weight_decay =",
        "self.num_epochs =",
        "self.num_iterations_per_epoch =",
        "self.num_val_iterations_per_epoch =",
        "self.enable_deep_supervision =",
    ),
    _attributes(
        TRAINER,
        "HybridTrainer reads these; nnU-Net counts current_epoch up",
        "self.configuration_manager =",
        "self.current_epoch =",
        "self.dataset_class =",
        "self.device =",
        "self.disable_checkpointing =",
        "self.fold =",
        "self.grad_scaler =",
        "self.label_manager =",
        "self.local_rank =",
        "self.loss =",
        "self.lr_scheduler =",
        "self.network =",
        "self.optimizer =",
        "self.output_folder =",
        "self.preprocessed_dataset_folder =",
        "self.preprocessed_dataset_folder_base =",
        "self.was_initialized =",
    ),
    Row(
        f"{TRAINER}.__init__",
        Use.COPIED,
        "folders that cli/train.py and evaluation look into: TRAINER__PLANS__CONFIGURATION/fold_N; resumed trainings "
        "and truncation hand on my_init_kwargs and _best_ema as they are in a checkpoint; without mirroring the axes "
        "are set to None",
        says=(
            "self.__class__.__name__ + '__' + self.plans_manager.plans_name + \"__\" + configuration",
            "f'fold_{fold}'",
            "self.my_init_kwargs = {}",
            "self._best_ema = None",
            "self.inference_allowed_mirroring_axes = None",
        ),
    ),
    Row(
        f"{TRAINER}.build_network_architecture",
        Use.OVERRIDDEN,
        "by a classmethod that builds a registered network; nnU-Net calls it on the class at prediction",
        parameters=(
            "plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision",
        ),
    ),
    Row(f"{TRAINER}.initialize", Use.OVERRIDDEN, "pretrained weights are loaded after it", parameters=("self",)),
    Row(
        f"{TRAINER}._set_batch_size_and_oversample",
        Use.OVERRIDDEN,
        "the recipe's batch size is put into the configuration before it reads it there",
        parameters=("self",),
        says=("self.configuration_manager.batch_size",),
    ),
    Row(
        f"{TRAINER}.set_deep_supervision_enabled",
        Use.OVERRIDDEN,
        "the networks have the switch themselves, not in a decoder",
        parameters=("self, enabled",),
    ),
    Row(
        f"{TRAINER}._get_deep_supervision_scales",
        Use.OVERRIDDEN,
        "the scales are the network's, not those of the plan's pooling",
        parameters=("self",),
    ),
    Row(
        f"{TRAINER}._build_loss",
        Use.OVERRIDDEN,
        "called with deep supervision off for the loss of one output, whose weight_ce and weight_dice are set",
        parameters=("self",),
        says=("if self.enable_deep_supervision:", "DeepSupervisionWrapper(loss, weights)"),
    ),
    Row(f"{TRAINER}.configure_optimizers", Use.OVERRIDDEN, "the recipe's optimizer and schedule", parameters=("self",)),
    Row(
        f"{TRAINER}.configure_rotation_dummyDA_mirroring_and_inital_patch_size",
        Use.OVERRIDDEN,
        "the recipe's rotation; the other three results are handed on",
        parameters=("self",),
        says=("return rotation_for_DA, do_dummy_2d_data_aug, initial_patch_size, mirror_axes",),
    ),
    Row(
        f"{TRAINER}.get_training_transforms",
        Use.OVERRIDDEN,
        "transforms are taken out of its list for the recipe's mirror_rotate",
        says=("return ComposeTransforms(transforms)",),
    ),
    Row(
        f"{TRAINER}.do_split",
        Use.OVERRIDDEN,
        "splits_final.json is written whole beforehand, by nnU-Net's own rule: five folds, seed 12345",
        parameters=("self",),
        says=("splits_final.json", "generate_crossval_split(", "seed=12345, n_splits=5"),
    ),
    Row(f"{TRAINER}.on_train_start", Use.OVERRIDDEN, "left-over partial checkpoints go first", parameters=("self",)),
    Row(f"{TRAINER}.on_train_epoch_start", Use.OVERRIDDEN, "iterations are counted from 0", parameters=("self",)),
    Row(
        f"{TRAINER}.train_step",
        Use.COPIED,
        "HybridTrainer.train_step is this one with the recipe's clipping, rates and a stop at a non-finite loss",
        parameters=("self, batch",),
        digest="141e91e02072",
    ),
    Row(
        f"{TRAINER}.validation_step",
        Use.OVERRIDDEN,
        "with averaged weights it sees those",
        parameters=("self, batch",),
        says=("self.network(data)",),
    ),
    Row(
        f"{TRAINER}.perform_actual_validation",
        Use.OVERRIDDEN,
        "with averaged weights it predicts with those",
        parameters=("self, save_probabilities",),
        says=("predictor.manual_initialization(self.network",),
    ),
    Row(
        f"{TRAINER}.save_checkpoint",
        Use.OVERRIDDEN,
        "it writes to another name first; the keys are those that checkpoints.py reads and truncation writes",
        parameters=("self, filename",),
        says=(
            "'network_weights':",
            "'optimizer_state':",
            "'logging':",
            "'_best_ema':",
            "'current_epoch': self.current_epoch + 1",
            "'init_args': self.my_init_kwargs",
            "'trainer_name': self.__class__.__name__",
            "'inference_allowed_mirroring_axes':",
        ),
    ),
    Row(
        f"{TRAINER}.load_checkpoint",
        Use.OVERRIDDEN,
        "the file is checked first, and the newest one taken; its parameter is `checkpoint` in nnU-Net's main branch",
        parameters=("self, filename_or_checkpoint", "self, checkpoint"),
    ),
    Row(f"{TRAINER}.print_to_log_file", Use.CALLED, "the trainer's log", says=("also_print_to_console",)),
)

# trainers/seeding.py and trainers/stop_signals.py wrap methods of a trainer that is made, ours or another
WRAPPED_ROWS = (
    Row(
        f"{TRAINER}.run_training",
        Use.OVERRIDDEN,
        "signals are noted within it; it counts on from current_epoch, and an epoch ends with on_epoch_end",
        parameters=("self",),
        says=("range(self.current_epoch, self.num_epochs)", "self.on_train_epoch_start()", "self.on_epoch_end()"),
    ),
    Row(
        f"{TRAINER}.on_epoch_end",
        Use.OVERRIDDEN,
        "a training that was asked to stop saves and ends after it",
        parameters=("self",),
        says=("self.current_epoch += 1",),
    ),
    Row(
        f"{TRAINER}.on_train_end",
        Use.COPIED,
        "a checkpoint holds the number of the next epoch: the counter is one less while it is written; the loaders' "
        "worker processes and threads are ended",
        says=(
            "self.current_epoch -= 1",
            "checkpoint_final.pth",
            "checkpoint_latest.pth",
            "self.dataloader_train._finish()",
        ),
    ),
    Row(
        f"{TRAINER}.get_dataloaders",
        Use.OVERRIDDEN,
        "the workers are forked with signals blocked; with no worker processes it returns the loaders as they are, "
        "which are then numbered",
        parameters=("self",),
        says=("get_allowed_n_proc_DA()", "SingleThreadedAugmenter(dl_tr, None)", "return mt_gen_train, mt_gen_val"),
    ),
    _attributes(TRAINER, "the processes of several GPUs agree to stop", "self.is_ddp ="),
    _attributes(TRAINER, "a stopped training ends the loaders", "self.dataloader_train = self.dataloader_val ="),
    Row(
        "nnunetv2.utilities.default_n_proc_DA.get_allowed_n_proc_DA",
        Use.CALLED,
        "how many worker processes load batches",
        says=("nnUNet_n_proc_DA",),
    ),
)

TRAINING_ROWS = (
    Row(
        "nnunetv2.run.run_training.load_pretrained_weights",
        Use.REPLACED,
        "by the one of pretrained_weights.py, which resizes bias tables and runs no code of the file",
        parameters=("network, fname, verbose",),
        says=("'.seg_layers.'",),
    ),
    Row(
        "nnunetv2.run.run_training.get_trainer_from_args",
        Use.CALLED,
        "the trainer of a study's training (study/train.py)",
        parameters=(
            "dataset_name_or_id, configuration, fold, trainer_name, plans_identifier, continue_training, device",
        ),
    ),
    Row(
        "nnunetv2.run.run_training.maybe_load_checkpoint",
        Use.CALLED,
        "a study's training that goes on, or is only validated (study/train.py)",
        parameters=("nnunet_trainer, continue_training, validation_only, pretrained_weights_file",),
    ),
    Row(
        "nnunetv2.run.run_training.maybe_load_checkpoint",
        Use.COPIED,
        "which checkpoint --c and --val read: cli/train.py checks it beforehand; it looks load_pretrained_weights up "
        "in its own module",
        says=(
            "'checkpoint_final.pth'",
            "'checkpoint_latest.pth'",
            "'checkpoint_best.pth'",
            "load_pretrained_weights(nnunet_trainer.network, pretrained_weights_file, verbose=True)",
        ),
    ),
    Row(
        "nnunetv2.run.run_training.run_training_entry",
        Use.COPIED,
        "the flags of nnUNetv2_train, which cli/train.py reads before it does",
        says=("'-tr'", "'-p'", "'-pretrained_weights'", "'-num_gpus'", "'--npz'", "'--c'", "'--val'", "'-device'"),
    ),
    Row(
        "nnunetv2.run.run_training.run_training",
        Use.CALLED,
        "it spawns the processes of several GPUs by torch.multiprocessing, whose ProcessRaisedException "
        "errors.sentence_of reads",
        says=("mp.spawn(run_ddp",),
    ),
    Row(
        "nnunetv2.training.loss.deep_supervision.DeepSupervisionWrapper",
        Use.CALLED,
        "the loss over several outputs; zip stops at the shorter list, so HybridTrainer checks the number of weights",
        parameters=("loss, weight_factors",),
    ),
    Row(
        "nnunetv2.utilities.crossval_split.generate_crossval_split",
        Use.CALLED,
        "the folds of a dataset without splits_final.json",
        parameters=("train_identifiers, seed, n_splits",),
    ),
    Row(
        "nnunetv2.training.dataloading.nnunet_dataset.infer_dataset_class",
        Use.CALLED,
        "preprocessed cases, for the check of an exported model and the number of cases of a training",
        parameters=("folder",),
    ),
    Row(
        "nnunetv2.training.dataloading.nnunet_dataset.nnUNetDatasetBlosc2.load_case",
        Use.CALLED,
        "its first result is the image (C, D, H, W)",
        parameters=("self, identifier",),
        says=("return data, seg, seg_prev, properties",),
    ),
)

PREDICTION_ROWS = (
    Row(
        PREDICTOR,
        Use.CALLED,
        "the base class of BatchedPredictor",
        parameters=(
            "tile_step_size, use_gaussian, use_mirroring, perform_everything_on_device, device, verbose, "
            "verbose_preprocessing, allow_tqdm",
        ),
    ),
    _attributes(
        PREDICTOR,
        "BatchedPredictor reads these",
        "self.tile_step_size =",
        "self.use_gaussian =",
        "self.use_mirroring =",
        "self.device =",
        "self.verbose =",
        "self.verbose_preprocessing =",
        "self.allow_tqdm =",
        "self.perform_everything_on_device =",
        "self.plans_manager, self.configuration_manager, self.list_of_parameters, self.network, self.dataset_json",
        "self.trainer_name, self.allowed_mirroring_axes, self.label_manager",
    ),
    Row(
        f"{PREDICTOR}.initialize_from_trained_model_folder",
        Use.COPIED,
        "trained_model.py builds the network by the same rules, from checkpoints that it read without running code",
        parameters=("self, model_training_output_dir, use_folds, checkpoint_name",),
        digest="451332e5a3c9",
    ),
    Row(
        f"{PREDICTOR}.manual_initialization",
        Use.OVERRIDDEN,
        "BatchedPredictor hands a TrainedModel to it, in this order",
        parameters=(
            "self, network, plans_manager, configuration_manager, parameters, dataset_json, trainer_name, "
            "inference_allowed_mirroring_axes",
        ),
    ),
    Row(
        f"{PREDICTOR}.auto_detect_available_folds",
        Use.CALLED,
        "the folds where none are named",
        parameters=("model_training_output_dir, checkpoint_name",),
    ),
    Row(
        f"{PREDICTOR}.predict_logits_from_preprocessed_data",
        Use.OVERRIDDEN,
        "2D configurations go through the network in batches; the mean over folds is nnU-Net's",
        parameters=("self, data",),
        digest="c96500788070",
    ),
    Row(
        f"{PREDICTOR}.predict_from_files",
        Use.OVERRIDDEN,
        "the same call; 2D configurations go through inference/pipeline.py",
        parameters=(
            "self, list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files, "
            "save_probabilities, overwrite, num_processes_preprocessing, num_processes_segmentation_export, "
            "folder_with_segs_from_prev_stage, num_parts, part_id",
        ),
        says=("'predict_from_raw_data_args.json'", "'dataset.json'", "'plans.json'"),
    ),
    Row(
        f"{PREDICTOR}.predict_from_files_sequential",
        Use.OVERRIDDEN,
        "the same call, in one process",
        parameters=(
            "self, list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files, "
            "save_probabilities, overwrite, folder_with_segs_from_prev_stage",
        ),
    ),
    Row(
        f"{PREDICTOR}._internal_predict_sliding_window_return_logits",
        Use.COPIED,
        "inference/sliding_window.py adds the same windows with the same weights in the same order",
        digest="9179d1b29e93",
    ),
    Row(
        f"{PREDICTOR}._internal_maybe_mirror_and_predict",
        Use.COPIED,
        "inference/sliding_window.py averages the same mirrored copies in the same order",
        digest="96614c55a488",
    ),
    Row(
        "nnunetv2.inference.sliding_window_prediction.compute_gaussian",
        Use.CALLED,
        "the weights of a window's pixels; its cache is cleared after a prediction, as nnU-Net does",
        parameters=("tile_size, sigma_scale, value_scaling_factor, dtype, device",),
    ),
    Row(
        "nnunetv2.inference.sliding_window_prediction.compute_steps_for_sliding_window",
        Use.CALLED,
        "where the windows lie",
        parameters=("image_size, tile_size, tile_step_size",),
    ),
    Row(
        "nnunetv2.inference.export_prediction.export_prediction_from_logits",
        Use.CALLED,
        "writes a segmentation in the image's own geometry",
        parameters=(
            "predicted_array_or_file, properties_dict, configuration_manager, plans_manager, "
            "dataset_json_dict_or_file, output_file_truncated, save_probabilities, num_threads_torch",
        ),
    ),
    Row(
        "nnunetv2.inference.export_prediction.convert_predicted_logits_to_segmentation_with_correct_shape",
        Use.CALLED,
        "labels on the image's own grid for the knock-out study, which writes no files of them",
        parameters=(
            "predicted_logits, plans_manager, configuration_manager, label_manager, properties_dict, "
            "return_probabilities, num_threads_torch",
        ),
    ),
    Row("nnunetv2.configuration.default_num_processes", Use.CALLED, "the default of predict_from_files"),
)

PLANS_ROWS = (
    Row(f"{PLANS}.PlansManager", Use.CALLED, "plans of a trained model", parameters=("plans_file_or_dict",)),
    Row(f"{PLANS}.PlansManager.get_configuration", Use.CALLED, "", parameters=("self, configuration_name",)),
    Row(f"{PLANS}.PlansManager.get_label_manager", Use.CALLED, "", parameters=("self, dataset_json, kwargs",)),
    Row(f"{PLANS}.PlansManager.image_reader_writer_class", Use.CALLED, "the reader of the images of a model"),
    Row(f"{PLANS}.PlansManager.dataset_name", Use.CALLED, "where the preprocessed cases lie"),
    Row(f"{PLANS}.PlansManager.__init__", Use.CALLED, "plans is a dictionary", says=("self.plans =",)),
    Row(
        f"{PLANS}.PlansManager._internal_resolve_configuration_inheritance",
        Use.COPIED,
        "inherits_from, which configurations.py writes and resolves",
        says=("'inherits_from'",),
    ),
    Row(f"{PLANS}.ConfigurationManager", Use.CALLED, "one configuration", parameters=("configuration_dict",)),
    Row(
        f"{PLANS}.ConfigurationManager.__init__",
        Use.CALLED,
        "HybridTrainer sets the batch size in its dictionary",
        says=("self.configuration =",),
    ),
    *(
        Row(f"{PLANS}.ConfigurationManager.{name}", Use.CALLED, "read of a configuration")
        for name in (
            "batch_size",
            "data_identifier",
            "network_arch_class_name",
            "network_arch_init_kwargs",
            "network_arch_init_kwargs_req_import",
            "patch_size",
            "preprocessor_class",
            "previous_stage_name",
        )
    ),
    Row(
        "nnunetv2.preprocessing.preprocessors.default_preprocessor.DefaultPreprocessor.run_case_npy",
        Use.CALLED,
        "inference/pipeline.py preprocesses arrays that it read and checked itself",
        parameters=("self, data, seg, properties, plans_manager, configuration_manager, dataset_json",),
        says=("return data, seg, properties",),
    ),
    Row("nnunetv2.utilities.label_handling.label_handling.LabelManager", Use.CALLED, "type of TrainedModel.labels"),
    Row(
        "nnunetv2.utilities.label_handling.label_handling.LabelManager.num_segmentation_heads",
        Use.CALLED,
        "output channels of a network",
    ),
    Row(
        "nnunetv2.utilities.label_handling.label_handling.determine_num_input_channels",
        Use.CALLED,
        "input channels of a network; the names of its keys are copied in dataset_description.number_of_channels",
        parameters=("plans_manager, configuration_or_config_manager, dataset_json",),
        says=("'modality'", "'channel_names'"),
    ),
    Row(
        "nnunetv2.imageio.reader_writer_registry.determine_reader_writer_from_dataset_json",
        Use.CALLED,
        "the reader of a dataset's files; RuntimeError where none reads the example",
        parameters=("dataset_json_content, example_file, allow_nonmatching_filename, verbose",),
    ),
    Row(
        "nnunetv2.utilities.utils.get_filenames_of_train_images_and_targets",
        Use.CALLED,
        "images and label of each training case",
        parameters=("raw_dataset_folder, dataset_json",),
        says=("'images'", "'label'"),
    ),
    Row("nnunetv2.paths.nnUNet_preprocessed", Use.CALLED, "is_set, and the folder as a path"),
    Row(
        "nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name",
        Use.CALLED,
        "finds trainers by name, ours in the folders that nnUNet_extTrainer names, read at each call",
        parameters=("trainer_name",),
        says=("nnUNet_extTrainer", "os.pathsep", "Could not find requested nnunet trainer"),
    ),
    Row(
        "nnunetv2.utilities.find_class_by_name.recursive_find_python_class",
        Use.CALLED,
        "`plan` asks for planners, extractors and preprocessors by name before nnU-Net does (named_classes.has_class)",
        parameters=("folder, class_name, current_module, base_folder, verbose, cleanup_imports_from_base_folder",),
    ),
    Row(
        "nnunetv2.utilities.find_class_by_name._recursive_find_python_class",
        Use.CALLED,
        "asks each module by hasattr, which the plug-in's __getattr__ answers",
        says=("hasattr(m, class_name)",),
    ),
    Row(
        "nnunetv2.experiment_planning.experiment_planners.network_topology.get_pool_and_conv_props",
        Use.CALLED,
        "the stages of nnU-Net's own networks, for the benchmark",
        parameters=("spacing, patch_size, min_feature_map_size, max_numpool",),
    ),
    Row(
        "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner.ExperimentPlanner.__init__",
        Use.COPIED,
        "the sizes of nnU-Net's U-Net in benchmark/networks.py",
        says=(
            "self.UNet_base_num_features = 32",
            "self.UNet_featuremap_min_edge_length = 4",
            "self.UNet_blocks_per_stage_encoder = (2, 2, 2,",
            "self.UNet_max_features_2d = 512",
        ),
    ),
    Row(
        "nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners"
        ".ResEncUNetPlanner.__init__",
        Use.COPIED,
        "the blocks of nnU-Net's residual encoder U-Net in benchmark/networks.py",
        says=(
            "self.UNet_blocks_per_stage_encoder = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6,",
            "self.UNet_blocks_per_stage_decoder = (1, 1, 1,",
        ),
    ),
)

ANY_NETWORK_ROWS = (
    Row(
        "nnunetv2.utilities.get_network_from_plans.get_network_from_plans",
        Use.COPIED,
        "any_network.adapter has the constructor that it calls, and configure writes what it reads",
        parameters=(
            "arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels, allow_init, "
            "deep_supervision",
        ),
        says=(
            "pydoc.locate(network_class)",
            "architecture_kwargs['deep_supervision'] = deep_supervision",
            "input_channels=input_channels",
            "num_classes=output_channels",
        ),
    ),
    Row(
        f"{TRAINER}.set_deep_supervision_enabled",
        Use.COPIED,
        "the adapter's decoder is itself",
        says=("mod.decoder.deep_supervision = enabled",),
    ),
    Row(
        f"{TRAINER}._get_deep_supervision_scales",
        Use.COPIED,
        "the adapter's strides are those from which this computes its scales",
        says=("self.configuration_manager.pool_op_kernel_sizes), axis=0))[:-1]",),
    ),
    Row(
        f"{TRAINER}._build_loss",
        Use.COPIED,
        "the adapter gives the last output twice, as the last weight is 0",
        says=("weights[-1] = 0", "weights / weights.sum()"),
    ),
    Row(
        f"{PLANS}.ConfigurationManager.pool_op_kernel_sizes",
        Use.COPIED,
        "where stock trainers read the strides",
        says=(),
    ),
    Row(
        "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner.ExperimentPlanner.__init__",
        Use.COPIED,
        "no batch holds more of the training voxels, in network_configurations.py",
        says=("self.max_dataset_covered = 0.05", "self.UNet_min_batch_size = 2"),
    ),
)

ROWS = (*TRAINER_ROWS, *WRAPPED_ROWS, *TRAINING_ROWS, *PREDICTION_ROWS, *PLANS_ROWS, *ANY_NETWORK_ROWS)


def located(name: str) -> Any:
    """The object of an importable path.

    Raises:
        AttributeError, ModuleNotFoundError: there is none.
    """
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if end == 1 or not ".".join(parts[:end]).startswith(str(error.name)):
                raise
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def digest_of(source: str) -> str:
    """A digest of source code, whatever its comments, indentation and empty lines."""
    lines = (line.strip() for line in source.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256(kept.encode()).hexdigest()[:12]


def what_changed(row: Row) -> str | None:
    """How the installed nnU-Net differs from what a row says, as one sentence; None where it does not."""
    try:
        found = located(row.name)
    except (AttributeError, ModuleNotFoundError) as error:
        return f"nnU-Net has no {row.name} any more ({error}), which is {row.use.value} here: {row.reason}"
    if row.parameters:
        parameters = ", ".join(inspect.signature(found).parameters)
        if parameters not in row.parameters:
            return f"{row.name} has the parameters ({parameters}) now, not ({row.parameters[0]}): {row.reason}"
    if row.says or row.digest is not None:
        source = inspect.getsource(found)
        for piece in row.says:
            if piece not in source:
                return f"the source of {row.name} has no `{piece}` any more: {row.reason}"
        if row.digest is not None and digest_of(source) != row.digest:
            return f"the source of {row.name} is another ({digest_of(source)}, not {row.digest}): {row.reason}"
    return None
