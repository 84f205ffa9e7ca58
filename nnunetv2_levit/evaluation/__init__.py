"""Measured results: curves, tables and figures, always from JSON."""
