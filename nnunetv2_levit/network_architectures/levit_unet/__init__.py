"""LeViT-UNet (Xu et al. 2021): encoder, decoder, model."""
