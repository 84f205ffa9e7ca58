"""``nnunetv2_levit configure``."""

import argparse

HELP = "add a configuration with another patch size to a plans file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", type=int, required=True, help="nnU-Net dataset id")
    parser.add_argument("--from", dest="base", default="2d", help="2D configuration to inherit from (default 2d)")
    parser.add_argument("--patch", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help="in pixels")
    parser.add_argument("--batch", type=int, help="batch size (default: inherited)")
    parser.add_argument("--name", help="name of the configuration (default: <from>_p<height>x<width>)")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="plans identifier (default nnUNetPlans)")
    parser.add_argument("--overwrite", action="store_true", help="replace a configuration of this name")


def run(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.nnunet.configurations import add_configuration

    name, path, remark = add_configuration(
        dataset_id=arguments.dataset,
        base=arguments.base,
        patch_size=tuple(arguments.patch),
        batch_size=arguments.batch,
        name=arguments.name,
        plans_name=arguments.plans,
        overwrite=arguments.overwrite,
    )
    print(
        f"{path} has the configuration {name}; next: nnUNetv2_train {arguments.dataset} {name} 0 -tr LeViTUNetTrainer"
    )
    if remark:
        print(f"note: {remark}")
