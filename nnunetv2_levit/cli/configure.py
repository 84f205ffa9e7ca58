"""``nnunetv2_levit configure``."""

import argparse
import shlex
from pathlib import Path

from nnunetv2_levit.cli.network_flags import add_network_settings

HELP = "add a configuration with another patch size, or with any network, to a plans file"

PLANS = "nnUNetPlans"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", type=int, required=True, help="nnU-Net dataset id")
    parser.add_argument("--from", dest="base", default="2d", help="2D configuration to inherit from (default 2d)")
    parser.add_argument("--patch", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="in pixels")
    parser.add_argument(
        "--network",
        help="package.module:Class, a registered network, smp:Unet/resnet34, timm:convnext_tiny or monai:SwinUNETR: "
        "nnU-Net's trainers and HybridRecipeTrainer then train it",
    )
    add_network_settings(parser)
    parser.add_argument("--batch", type=int, help="batch size (default: inherited)")
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="choose the largest batch that fits, counted without a GPU"
    )
    parser.add_argument("--name", help="name of the configuration (default: <from>[_p<height>x<width>][_<network>])")
    parser.add_argument("-p", "--plans", default=PLANS, help=f"plans identifier (default {PLANS})")
    parser.add_argument("--overwrite", action="store_true", help="replace a configuration of this name")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.errors import UserError
    from nnunetv2_levit.nnunet.configurations import add_configuration, names_the_adapter

    if arguments.patch is None and arguments.network is None and arguments.gpu_memory is None:
        raise UserError("nothing is to be configured: give --patch, --network or --gpu-memory")
    if arguments.set and arguments.network is None:
        raise UserError("--set belongs to a network: give --network, too")
    adapted = arguments.network is not None or arguments.gpu_memory is not None
    if adapted or names_the_adapter(arguments.dataset, arguments.base, arguments.plans):
        _with_network(arguments)
        return
    name, path, remark = add_configuration(
        dataset_id=arguments.dataset,
        base=arguments.base,
        patch_size=tuple(arguments.patch),
        batch_size=arguments.batch,
        name=arguments.name,
        plans_name=arguments.plans,
        overwrite=arguments.overwrite,
    )
    print(f"{path} has the configuration {name}; next: {_training(arguments, name, '-tr', 'LeViTUNetTrainer')}")
    if remark:
        print(f"note: {remark}")


def _training(arguments: argparse.Namespace, configuration: str, *words: str) -> str:
    """The command that trains the configuration."""
    plans = [] if arguments.plans == PLANS else ["-p", arguments.plans]
    return shlex.join(["nnUNetv2_train", str(arguments.dataset), configuration, "0", *words, *plans])


def _with_network(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.any_network.names import file_of
    from nnunetv2_levit.any_network.settings import parse_settings
    from nnunetv2_levit.cli.network_flags import find_in_this_folder
    from nnunetv2_levit.nnunet.network_configurations import add_network_configuration

    settings = parse_settings(arguments.set)
    here = find_in_this_folder()
    added = add_network_configuration(
        dataset_id=arguments.dataset,
        network=arguments.network,
        settings=settings,
        base=arguments.base,
        patch_size=None if arguments.patch is None else tuple(arguments.patch),
        batch_size=arguments.batch,
        gpu_memory=arguments.gpu_memory,
        name=arguments.name,
        plans_name=arguments.plans,
        overwrite=arguments.overwrite,
    )
    print(
        f"{added.path} has the configuration {added.configuration}; next: {_training(arguments, added.configuration)} "
        "(with any trainer, such as -tr HybridRecipeTrainer)"
    )
    if added.is_adapted:
        does = f", which {' and '.join(added.adapter)}" if added.adapter else ""
        print(f"note: the plans name this package's adapter{does}; train and predict where nnunetv2_levit is installed")
    else:
        print(f"note: the plans name {added.network_class} itself; this package is not needed to train and predict")
    if added.gpu_gib is not None:
        print(f"note: a training step of batch {added.batch_size} takes {added.gpu_gib:.2f} GiB, counted on shapes")
    file = file_of(arguments.network) if arguments.network is not None else None
    if here and file is not None and file.is_relative_to(Path.cwd()):
        print(f"note: nnU-Net has to find {arguments.network}: export PYTHONPATH={shlex.quote(str(Path.cwd()))}")
