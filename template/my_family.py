"""The same network as a family of trainers, such as ``-tr MyNetworkTrainer_50epochs``, once the folder is installed."""

from nnunetv2_levit.network_architectures import Family as Networks
from nnunetv2_levit.network_architectures.family import Constructor
from nnunetv2_levit.trainers.families import Family as Trainers
from nnunetv2_levit.trainers.recipe import Recipe

# the class is imported when it is built; image_size is the patch, which this network does not need
NETWORKS = Networks(
    networks={
        f"my_network_{width}": Constructor("my_family_networks", "build", {"width": width}) for width in (16, 32)
    },
    smallest=("my_network_16",),
    others="wider",
)
TRAINERS = Trainers(
    name="MyNetwork",
    summary="my network",
    sizes={str(width): f"my_network_{width}" for width in (16, 32)},
    default_size="32",
    recipe=Recipe(learning_rate=1e-3),
    options=(),
)
