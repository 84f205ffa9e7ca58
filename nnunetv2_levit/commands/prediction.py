"""Predicting with a trained model."""

from nnunetv2_levit.commands import AddCommand


def register(command: AddCommand) -> None:
    """Nothing yet."""
