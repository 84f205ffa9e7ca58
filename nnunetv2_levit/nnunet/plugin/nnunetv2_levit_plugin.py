"""What nnU-Net imports when it looks a trainer up: every trainer of this package, by name.

nnU-Net purges modules of this folder after each look-up, so no class is defined here.
"""

import sys
from types import TracebackType
from typing import Any

from nnunetv2_levit import trainers
from nnunetv2_levit.errors import ending_of
from nnunetv2_levit.nnunet.replacements import install


def _one_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook` of nnU-Net's commands: what a user can mend ends them with a sentence and exit code 2,
    a stop that was asked for with exit code 75.


    Python ends a program with the code of a SystemExit that the hook raises. A training on several GPUs by plain
    nnUNetv2_train never imports this in the process that the user started: there the sentence ends torch's traceback.
    """
    ending = ending_of(error)
    if ending is None:
        sys.__excepthook__(kind, error, trace)
        return
    line, code = ending
    print(line, file=sys.stderr, flush=True)
    raise SystemExit(code)


def __getattr__(name: str) -> Any:
    if trainers.naming.family_of(name) is None:  # such as HybridTrainer, which trains nothing by itself
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    try:
        trainer = getattr(trainers, name)
    except AttributeError as error:
        print(f"nnunetv2_levit: {error}", file=sys.stderr)  # nnU-Net only says that it found no such trainer
        raise
    install(on_uncaught=_one_sentence)
    return trainer
