"""Masks as PNG files that any viewer shows: 8-bit grey, 0 background and 255 object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from carvana_ens.errors import UsageError
from carvana_ens.files import replacing
from carvana_ens.types import Mask

_COMPRESSION_LEVEL = 1
"""Masks are long runs of two values: higher levels take several times longer for a few kilobytes."""


def write_mask(folder: Path, image_id: str, mask: Mask) -> Path:
    """Writes ``<folder>/<image_id>.png`` and returns its path; the folder is made where it is missing.

    Args:
        folder: where the masks go.
        image_id: the photo's id.
        mask: (H, W) bool, True = object.

    Raises:
        UsageError: ``mask`` is no (H, W) bool array with at least one pixel.
        CarvanaEnsError: the file cannot be written.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
        raise UsageError(
            f"the mask of image {image_id!r} is {mask.dtype} of shape {mask.shape}: give bool of (height, width)"
        )
    path = folder / f"{image_id}.png"
    with replacing(path) as temporary:
        Pictures.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(
            temporary, format="PNG", compress_level=_COMPRESSION_LEVEL
        )
    return path
