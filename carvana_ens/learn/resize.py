"""Photos, masks and maps brought to another grid, the same way in training and prediction (Pillow, half-pixel)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from carvana_ens.types import Image, Mask, ProbabilityMap, Size

BILINEAR = Pillow.Resampling.BILINEAR
BOX = Pillow.Resampling.BOX


def grid_of(array: NDArray[np.generic]) -> Size:
    """Size of an (H, W) or (H, W, 3) array."""
    return Size(array.shape[0], array.shape[1])


def resize_image(image: Image, size: Size) -> Image:
    """(H, W, 3) uint8 on the grid ``size``: bilinear, with the support widened where it shrinks (no aliasing)."""
    if grid_of(image) == size:
        return np.ascontiguousarray(image)
    return np.array(Pillow.fromarray(image).resize((size.width, size.height), BILINEAR))


def mask_cover(mask: Mask, size: Size) -> ProbabilityMap:
    """(H, W) float32 on the grid ``size``: the part of each new pixel's area that the object covers."""
    cover = mask.astype(np.float32)
    if grid_of(mask) == size:
        return cover
    resized = Pillow.fromarray(cover).resize((size.width, size.height), BOX)
    return np.array(resized, dtype=np.float32)


def resize_map(values: ProbabilityMap, size: Size) -> ProbabilityMap:
    """(H, W) float32 on the grid ``size``, bilinear as in ``resize_image``."""
    if grid_of(values) == size:
        return values
    return np.array(Pillow.fromarray(values).resize((size.width, size.height), BILINEAR), dtype=np.float32)
