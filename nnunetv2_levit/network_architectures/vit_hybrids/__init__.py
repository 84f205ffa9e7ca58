"""Vision transformers beside or after a CNN: TransUNet, 2D UNETR, 2D CATS and TransFuse."""
