"""Published datasets to nnU-Net's raw format, each by one command."""
