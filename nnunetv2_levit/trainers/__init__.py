"""nnU-Net v2 trainers by name, for example ``LeViTUNetTrainer`` or ``LeViTUNetTrainer_192_conv_50epochs``.

No class is written per combination: any name of the grammar in `naming.py` resolves on attribute access.
"""

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from nnunetv2_levit.trainers.naming import FAMILIES, family_of, trainer_class

__all__ = ["FAMILIES", "HybridTrainer", "trainer_class"]


def __getattr__(name: str) -> type[HybridTrainer]:
    if family_of(name) is not None:
        try:
            return trainer_class(name)
        except UserError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
