"""Trainers by name, as nnU-Net looks them up: its own, this package's, and those of a person's own folders."""

import contextlib
import io
import os
from collections.abc import Iterator

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_levit.nnunet.environment import VARIABLE, with_plugin
from nnunetv2_levit.nnunet.replacements import left_as_it_is


@contextlib.contextmanager
def _plugin_known() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = with_plugin(before)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def find_trainer_class(name: str) -> type[nnUNetTrainer]:
    """The trainer's class, found without any trace: no environment variable is set, nothing of nnU-Net is replaced.

    Raises:
        RuntimeError: nnU-Net finds no such trainer.
        Exception: what a foreign trainer's module raises while it is imported.
    """
    # nnU-Net prints where it looks
    with _plugin_known(), left_as_it_is(), contextlib.redirect_stdout(io.StringIO()):
        return recursive_find_trainer_class_by_name(name)
