"""UNet-2022 (Guo et al. 2022): windows, blocks, encoder, decoder, model."""
