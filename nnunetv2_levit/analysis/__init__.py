"""Looking into trained models, by way of nnU-Net's trained-model folders."""
