"""What nnU-Net imports when it looks a trainer up: every trainer of this package, by name.

nnU-Net purges modules of this folder after each look-up, so nothing is defined here.
"""

import sys

from nnunetv2_levit import trainers


def __getattr__(name: str):
    try:
        return getattr(trainers, name)
    except AttributeError as error:
        if trainers.naming.family_of(name) is not None:
            print(f"nnunetv2_levit: {error}", file=sys.stderr)  # nnU-Net only says that it found no such trainer
        raise
