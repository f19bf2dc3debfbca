"""Probability stores; the only room that imports zarr."""
