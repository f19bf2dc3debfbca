"""Outlines of masks as polygons that hold exactly the mask's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import UsageError
from carvana_ens.types import Mask

Ring = NDArray[np.float64]
"""(M, 2) x and y of a ring's corners in pixels from the top left corner of the picture; the first is not repeated."""


def polygons(mask: Mask) -> list[list[Ring]]:
    """Polygons of a bool (H, W) mask: each an outer ring and its holes, in the order of their first rows.

    Rings run between the pixels' centres (marching squares at 0.5): the centre of a pixel, at (column + 0.5, row +
    0.5), is inside by the even-odd rule where the mask is on, and never on a ring. Pixels that touch at corners only
    are polygons of their own.

    Raises:
        UsageError: scikit-image is not installed.
    """
    find = _find_contours()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = rows[0], columns[0]
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.uint8)
    # of (row, column) in the padded cut, its first pixel's centre at (0, 0)
    found = [_straightened(ring[:-1, ::-1] + (left - 0.5, top - 0.5)) for ring in find(inside, 0.5)]
    outers = [[ring] for ring in found if _area(ring) > 0]
    for ring in found:
        if _area(ring) < 0:
            around = [outer for outer in outers if _holds(outer[0], ring[0])]
            min(around, key=lambda outer: _area(outer[0])).append(ring)
    return outers


def check_installed() -> None:
    """Refuses outlines before any work is done for them; raises what ``polygons`` raises."""
    _find_contours()


def _find_contours() -> Any:
    try:
        from skimage.measure import find_contours
    except ImportError:
        raise UsageError("outlines need scikit-image: pip install 'carvana-ens[outlines]'") from None
    return find_contours


def _straightened(ring: Ring) -> Ring:
    """The ring without points in the middle of its sides."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    straight: Ring = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return straight


def _area(ring: Ring) -> float:
    """Signed: positive for outer rings, as find_contours turns them."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _holds(ring: Ring, point: NDArray[np.float64]) -> bool:
    """Whether a point lies in a ring, by the even-odd rule."""
    x, y = ring[:, 0], ring[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    crossing = (y > point[1]) != (next_y > point[1])
    at = x[crossing] + (point[1] - y[crossing]) * (next_x - x)[crossing] / (next_y - y)[crossing]
    return bool(np.count_nonzero(at > point[0]) % 2)
