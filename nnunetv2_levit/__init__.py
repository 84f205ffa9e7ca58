"""Transformer-CNN hybrids as trainers for nnU-Net v2.

What `__all__` lists is the public API: plain functions that return data, raise exceptions and print nothing unless
asked. It is stable; modules below this one may change. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2_levit.analysis.attention import attention
    from nnunetv2_levit.analysis.block_study import block_study
    from nnunetv2_levit.analysis.class_activation import class_activation
    from nnunetv2_levit.analysis.truncation import truncate
    from nnunetv2_levit.dataset_conversion.convert import convert
    from nnunetv2_levit.errors import UserError
    from nnunetv2_levit.evaluation.compare import compare
    from nnunetv2_levit.evaluation.evaluate import evaluate
    from nnunetv2_levit.inference.export import export
    from nnunetv2_levit.inference.pipeline import FailedCasesError
    from nnunetv2_levit.inference.predict import predict
    from nnunetv2_levit.network_architectures import create, list_networks
    from nnunetv2_levit.network_check.check import check_network
    from nnunetv2_levit.trainers.listing import list_trainers
    from nnunetv2_levit.trainers.naming import trainer_class

__version__ = "0.1.0"

__all__ = [
    "FailedCasesError",
    "UserError",
    "attention",
    "block_study",
    "check_network",
    "class_activation",
    "compare",
    "convert",
    "create",
    "evaluate",
    "export",
    "list_networks",
    "list_trainers",
    "predict",
    "trainer_class",
    "truncate",
]

_MODULES = {
    "FailedCasesError": "inference.pipeline",
    "UserError": "errors",
    "attention": "analysis.attention",
    "block_study": "analysis.block_study",
    "check_network": "network_check.check",
    "class_activation": "analysis.class_activation",
    "compare": "evaluation.compare",
    "convert": "dataset_conversion.convert",
    "create": "network_architectures",
    "evaluate": "evaluation.evaluate",
    "export": "inference.export",
    "list_networks": "network_architectures",
    "list_trainers": "trainers.listing",
    "predict": "inference.predict",
    "trainer_class": "trainers.naming",
    "truncate": "analysis.truncation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found  # the next use finds it without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
