"""The folder that the environment variable ``nnUNet_extTrainer`` points to."""
