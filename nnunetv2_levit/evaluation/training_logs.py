"""The lines of nnU-Net's ``training_log_*.txt``; apart, as what asks how far 10 000 trainings are draws nothing."""

import re

STAMP = r"^\S+ \S+: "
EPOCH = re.compile(STAMP + r"Epoch (\d+)\s*$")
PSEUDO_DICE = re.compile(STAMP + r"Pseudo dice \[(.*)\]")
VALIDATION_DICE = re.compile(STAMP + r"Mean Validation Dice:\s+(\S+)")
SCALARS = {
    "learning_rate": re.compile(STAMP + r"Current learning rate: (\S+)"),
    "train_loss": re.compile(STAMP + r"train_loss (\S+)"),
    "val_loss": re.compile(STAMP + r"val_loss (\S+)"),
    "seconds": re.compile(STAMP + r"Epoch time: (\S+) s"),
}
