"""Turning a trained model into another one."""

from nnunetv2_levit.commands import AddCommand


def register(command: AddCommand) -> None:
    """Nothing yet."""
