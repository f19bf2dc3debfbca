"""Numba kernels and their public faces: buffers in, results out; no files, no torch, no zarr."""
