"""Trained model folders in nnU-Net's layout, without a training: random weights, and batch norms that do something."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

LABELS = {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}
REGIONS = {"background": 0, "heart": [1, 2, 3], "myocardium": 2, "left ventricle": 3, "ignore": 4}
RESAMPLING = {
    "data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}


def _configuration(patch_size, channels, norm):
    """nnU-Net's plan of a small U-Net, 2D or 3D by the patch size."""
    dimensions = len(patch_size)
    return {
        "data_identifier": "test",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": list(patch_size),
        "spacing": [1.5] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in RESAMPLING},
        **{f"resampling_fn_{kind}_kwargs": options for kind, options in RESAMPLING.items()},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [8, 16, 32],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * 3,
                "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
                "n_conv_per_stage": [2, 2, 2],
                "n_conv_per_stage_decoder": [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.{norm.lower()}norm.{norm}Norm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }


@torch.no_grad()
def _spread(network, shape):
    """Scale the last layer so that the classes' logits differ, each being the largest somewhere."""
    logits = network.eval()(torch.randn(shape))
    axes = [axis for axis in range(logits.ndim) if axis != 1]
    last = [
        m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd) and m.out_channels == logits.shape[1]
    ][-1]
    scale = 2 / logits.std(axes)
    shape = [1] * last.weight.ndim
    shape[1 if last.transposed else 0] = -1
    last.weight.mul_(scale.view(shape))
    last.bias.sub_(logits.mean(axes)).mul_(scale)


def write_model_folder(
    folder: Path,
    *,
    trainer: str = "nnUNetTrainer",
    folds: tuple[int, ...] = (0, 1),
    patch_size: tuple[int, ...] = (48, 40),
    channels: int = 1,
    labels: dict | None = None,
    norm: str = "Batch",
    mirror_axes: tuple[int, ...] | None = (0, 1),
    poison: tuple[int, ...] = (),
    reader: str = "SimpleITKIO",
    file_ending: str = ".nii.gz",
    architecture: dict | None = None,
) -> Path:
    """A model folder of ``trainer``; the folds in ``poison`` have a NaN among their weights."""
    name = "2d" if len(patch_size) == 2 else "3d_fullres"
    plans = {
        "dataset_name": "Dataset027_ACDC",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [10.0, 1.5, 1.5],
        "original_median_shape_after_transp": [10, 200, 200],
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: _configuration(patch_size, channels, norm)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
    }
    if architecture is not None:
        plans["configurations"][name]["architecture"] = architecture
    labels = LABELS if labels is None else labels
    dataset = {
        "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": file_ending,
    }
    if any(isinstance(value, list) for value in labels.values()):
        dataset["regions_class_order"] = [1, 2, 3]
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))

    manager = PlansManager(plans)
    configuration = manager.get_configuration(name)
    for fold in folds:
        torch.manual_seed(fold)
        network = recursive_find_trainer_class_by_name(trainer).build_network_architecture(
            manager,
            configuration,
            determine_num_input_channels(manager, configuration, dataset),
            manager.get_label_manager(dataset).num_segmentation_heads,
            False,
        )
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        _spread(network, (1, channels, *patch_size))
        if fold in poison:
            next(network.parameters()).data.view(-1)[0] = float("nan")
        (folder / f"fold_{fold}").mkdir()
        torch.save(
            {
                "network_weights": network.state_dict(),
                "init_args": {"plans": plans, "configuration": name, "fold": fold, "dataset_json": dataset},
                "trainer_name": trainer,
                "inference_allowed_mirroring_axes": mirror_axes,
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder


def write_case(folder: Path, name: str, volume: np.ndarray, *, spacing: float = 1.6, channels: int = 1) -> Path:
    """A case of ``volume`` (slices, height, width), further channels being other functions of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for channel in range(channels):
        image = sitk.GetImageFromArray((volume ** (1 / (channel + 1))).astype(np.float32))
        image.SetSpacing((spacing, spacing, 10.0))
        path = folder / f"{name}_{channel:04d}.nii.gz"
        sitk.WriteImage(image, str(path))
    return path
