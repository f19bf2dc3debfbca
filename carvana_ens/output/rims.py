"""The rim of a cutout: where it is soft, and what colour the object has there without the background's share.

Needs the extra ``cutout`` (PyMatting, and scipy that comes with it).
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Image, Mask, ProbabilityMap

Alpha = NDArray[np.uint8]
"""(H, W) opacity, 0..255; 128 or more = object."""

RIM = 3
"""Pixels on either side of the object's outline that may be soft: photos are hardly ever softer."""
SURE = 0.9
"""Part of the way from the cut to 0 or to 1 from which on members are sure."""
REACH = 8
"""Pixels beyond the rim that keep the object's colour under alpha 0: programs that scale a cutout mix them in."""

_AROUND = 64
"""Pixels around the object that its background's colours are estimated from."""
_STRIP = 256
"""Rows whose distances to the object are found at a time."""
_ONE = threading.Lock()
"""PyMatting takes 45 bytes a pixel, and threads of numba's, which may be asked for by one thread at a time."""


def check_installed() -> None:
    """Refuses to begin without the extra.

    Raises:
        UsageError: it is not installed, or does not load.
    """
    try:
        import pymatting  # noqa: F401
    except ImportError as error:
        raise UsageError(f"cutouts need the extra: pip install 'carvana-ens[cutout]' ({error})") from error


def rim_alpha(levels: ProbabilityMap, cut: float, mask: Mask) -> Alpha:
    """How opaque each pixel of the object is.

    Hard, as the mask says, but for pixels within ``RIM`` of the mask's outline where the members are unsure: there
    alpha is 1/2 at the cut and runs to 0 and 1 at ``SURE`` of the way to levels 0 and 1. Where that seam is wider than
    ``RIM`` on a side it is steepened, so that alpha runs over the distance to the cut, level difference by gradient.
    What is 128 or more is the mask, always. Holes and specks of the mask that members nowhere are half sure of are
    hard, so that there is no soft hole.

    Args:
        levels: the blend before its cut, in [0, 1].
        cut: level from which on it is object, in (0, 1].
        mask: the blend after its cut and its post-processing; where that changed it, the outline is hard.

    Raises:
        DataError: levels and mask of other sizes.
    """
    if levels.shape != mask.shape:
        raise DataError(f"levels are {levels.shape}, their mask {mask.shape}: they must be of one photo")
    above = levels >= np.float32(cut)
    ways = np.where(above, np.float32(max(1 - cut, 1e-6)), np.float32(cut))
    signed: ProbabilityMap = ((levels - np.float32(cut)) / (ways * np.float32(SURE))).astype(np.float32)
    sure = _without_doubtful(mask, signed)
    alpha: Alpha = np.where(mask, np.uint8(255), np.uint8(0))
    box = object_box(mask, 2 * RIM)
    if box is not None:
        ramp = _ramp(signed[box], mask[box])
        soft = _near(sure[box]) & (above == mask)[box] & (sure == mask)[box]
        alpha[box] = np.where(soft, ramp, alpha[box])
    return alpha


def _ramp(signed: ProbabilityMap, mask: Mask) -> Alpha:
    """Alpha from the way to where members are sure, 0 at the cut and 1 there; steepened, and true to the mask."""
    from scipy import ndimage

    # The steepest nearby: on the ridge of what is thin the slope itself is 0, and yet nothing there is too wide.
    slope = ndimage.maximum_filter(ndimage.gaussian_gradient_magnitude(signed, 1.0), 2 * RIM + 1)
    ramp = np.rint(np.clip(127.5 + 127.5 * signed / np.clip(slope * RIM, 1e-6, 1), 0, 255))
    alpha: Alpha = np.where(mask, np.maximum(ramp, 128), np.minimum(ramp, 127)).astype(np.uint8)
    return alpha


def _near(mask: Mask) -> Mask:
    """Pixels of which one of the other kind lies at most ``RIM`` away."""
    near: Mask = np.where(mask, _within(~mask, RIM), _within(mask, RIM))
    return near


def _within(mask: Mask, reach: int) -> Mask:
    """Pixels that have one of the mask at most ``reach`` away; strip by strip, as distances take 24 bytes a pixel."""
    from scipy import ndimage

    found = np.zeros_like(mask)
    for first in range(0, mask.shape[0], _STRIP):
        above = max(0, first - reach)
        part = mask[above : first + _STRIP + reach]
        if part.any():
            near = ndimage.distance_transform_edt(~part) <= reach
            found[first : first + _STRIP] = near[first - above :][:_STRIP]
    return found


def _without_doubtful(mask: Mask, signed: ProbabilityMap) -> Mask:
    """The mask without specks and holes of which no pixel is at least half sure; signed: 0 at the cut, 1 where sure."""
    from scipy import ndimage

    kept = mask.copy()
    half_sure = np.abs(signed) >= 0.5
    for region, neighbours in ((mask, np.ones((3, 3))), (~mask, None)):
        parts, count = ndimage.label(region, neighbours)
        doubtful = np.ones(count + 1, np.bool_)
        doubtful[parts[half_sure]] = False
        kept ^= region & doubtful[parts]
    return kept


def clean_colours(photo: Image, alpha: Alpha) -> Image:
    """The object's own colour where it is soft: the background's share is taken out.

    With ``T. Germer et al., Fast Multi-Level Foreground Estimation, arXiv 2006.14970``, as PyMatting has it, from
    photo = alpha x object + (1 - alpha) x background. Where alpha is 255 the photo stays as it is; up to ``REACH``
    pixels beyond the rim the object's colour goes on; further out it is black.

    Args:
        photo: (H, W, 3) uint8 RGB.
        alpha: its ``rim_alpha``.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    from pymatting import estimate_foreground_ml

    colours = np.zeros_like(photo)
    box = object_box(alpha > 0, _AROUND)
    if box is None or alpha.size == 1:  # PyMatting cannot halve a photo of one pixel
        return photo.copy() if alpha.all() else colours
    part, opacity = photo[box], alpha[box]
    with _ONE:
        found = estimate_foreground_ml(part / np.float32(255), opacity / np.float32(255))
        found *= 255
        own = np.rint(found, out=found).astype(np.uint8)
        del found
    own[~_within(opacity > 0, REACH)] = 0
    colours[box] = np.where((opacity == 255)[..., None], part, own)
    return colours


def object_box(mask: Mask, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns of the object and a margin of so many pixels, inside the photo; None where there is none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    first, last = rows[0], rows[-1] + 1
    left, right = columns[0], columns[-1] + 1
    return (
        slice(max(0, int(first) - margin), int(last) + margin),
        slice(max(0, int(left) - margin), int(right) + margin),
    )
