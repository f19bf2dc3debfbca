"""Ensembles of binary segmentation models on high-resolution pictures."""
