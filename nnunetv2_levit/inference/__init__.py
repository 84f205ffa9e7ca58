"""Predicting with a trained nnU-Net model folder: batched for 2D configurations, nnU-Net's own way for all others."""
