"""What is put in the place of nnU-Net's own while one of this package's trainers is trained.

Importing or building a trainer replaces nothing. `install` does, when nnU-Net looks a trainer up through the plug-in
(its commands, and each process of a training on several GPUs) and when ``nnunetv2_levit train`` starts one.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any

from nnunetv2_levit.nnunet.pretrained_weights import load_pretrained_weights

UncaughtHook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]

_originals: dict[tuple[str, str], tuple[ModuleType, Any]] = {}
"""By module and name: the module and what stood there before."""


def _replace(module: ModuleType, name: str, replacement: Any) -> None:
    if (module.__name__, name) not in _originals:
        _originals[module.__name__, name] = (module, getattr(module, name))
        setattr(module, name, replacement)


def install(*, on_uncaught: UncaughtHook | None = None) -> None:
    """Replace, once for this process, nnU-Net's loader of ``-pretrained_weights``.

    Args:
        on_uncaught: also put this in the place of `sys.excepthook`, for programs that are not this package's.
    """
    from nnunetv2.run import run_training

    _replace(run_training, "load_pretrained_weights", load_pretrained_weights)
    if on_uncaught is not None:
        _replace(sys, "excepthook", on_uncaught)


def uninstall() -> None:
    """Put everything back that `install` replaced."""
    while _originals:
        (_, name), (module, original) = _originals.popitem()
        setattr(module, name, original)


@contextmanager
def left_as_it_is() -> Iterator[None]:
    """Undo at the end what is installed within, for a look-up of a trainer that nnU-Net does not train."""
    before = set(_originals)
    try:
        yield
    finally:
        for key in [key for key in _originals if key not in before]:
            module, original = _originals.pop(key)
            setattr(module, key[1], original)
