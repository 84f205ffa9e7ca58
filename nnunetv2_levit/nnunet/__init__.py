"""The one seam to nnU-Net: its folders, plug-in, plans, model folders, checkpoints, and what of it is private."""
