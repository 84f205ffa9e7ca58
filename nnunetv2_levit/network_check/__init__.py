"""The contract of a network in nnU-Net, checked on anyone's class: `check.check_network`."""
