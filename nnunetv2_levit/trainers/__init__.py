"""nnU-Net v2 trainers by name, for example ``LeViTUNetTrainer`` or ``LeViTUNetTrainer_192_conv_50epochs``.

No class is written per combination: any name of the grammar in `naming.py` resolves on attribute access. What exists
is listed without torch; a class needs it.
"""

from typing import TYPE_CHECKING, Any

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.trainers.listing import list_trainers
from nnunetv2_levit.trainers.naming import FAMILIES, family_of, trainer_class

if TYPE_CHECKING:
    from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer

__all__ = ["FAMILIES", "HybridTrainer", "list_trainers", "trainer_class"]


def __getattr__(name: str) -> Any:
    if name == "HybridTrainer":
        from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer

        return HybridTrainer
    if family_of(name) is not None:
        try:
            return trainer_class(name)
        except UserError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
