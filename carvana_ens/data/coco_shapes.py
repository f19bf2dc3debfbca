"""The outlines of COCO: polygons and its own run-length encodings, drawn into a mask.

Polygons after ``rleFrPoly`` of pycocotools' ``maskApi.c`` (cocodataset/cocoapi, BSD-2-Clause); equal to it pixel by
pixel, which the tests assert.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import DataError
from carvana_ens.types import Json, Mask, Size

_SCALE = 5  # outlines are traced on a grid this much finer, as rleFrPoly does


def fill_polygon(mask: Mask, polygon: Json) -> None:
    """Adds a closed polygon, filled by the even-odd rule, to a mask.

    Args:
        mask: (H, W) bool, changed in place.
        polygon: ``[x0, y0, x1, y1, ...]`` in pixels from the top left corner; at least three points.

    Raises:
        DataError: fewer than three points, an odd count, anything but finite numbers, or a point farther outside the
            image than the image is large.
    """
    size = Size(*mask.shape)
    x, y = _trace(_points(polygon, size))
    # A pixel column is entered or left where the traced line passes the column's middle.
    left, top = np.minimum(x[1:], x[:-1]), np.minimum(y[1:], y[:-1])
    crossing = (x[1:] != x[:-1]) & (left % _SCALE == _SCALE // 2)
    columns = (left[crossing] - _SCALE // 2) // _SCALE
    rows = np.clip(-((_SCALE // 2 - top[crossing]) // _SCALE), 0, size.height)  # ceil((y - 2) / 5)
    inside = (columns >= 0) & (columns < size.width)
    columns, rows = columns[inside], rows[inside]
    if not columns.size:
        return
    first, last = int(columns.min()), int(columns.max()) + 1
    toggles = np.bincount((columns - first) * size.height + rows, minlength=(last - first) * size.height + 1)
    filled = (np.cumsum(toggles[:-1]) & 1).astype(np.bool_)
    mask[:, first:last] |= filled.reshape(last - first, size.height).T


def fill_rle(mask: Mask, segmentation: dict[str, Json]) -> None:
    """Adds a COCO run-length encoding to a mask.

    Args:
        mask: (H, W) bool, changed in place.
        segmentation: ``size`` [H, W] and ``counts``, a list of run lengths or pycocotools' compressed text.

    Raises:
        DataError: another size than the mask's, or counts that are no run lengths of that many pixels.
    """
    from carvana_ens.core.coco_counts import coco_decode  # numba

    size = Size(*mask.shape)
    if segmentation.get("size") != list(size):
        raise DataError(f"its encoding is of size {segmentation.get('size')!r}, its image of {list(size)}")
    mask |= coco_decode(segmentation)


def _points(polygon: Json, size: Size) -> NDArray[np.float64]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise DataError("an outline must be a list [x, y, x, y, ...] of three points or more")
    if not all(type(value) in (int, float) for value in polygon):
        raise DataError("an outline holds something else than numbers")
    points = np.array(polygon, np.float64).reshape(-1, 2)
    sides = np.array([size.width, size.height])
    if not np.all((points >= -sides) & (points <= 2 * sides)):  # false for NaN too
        raise DataError(f"an outline leaves its image of {size} by more than the image's own size")
    return points


def _trace(points: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """All points of the fine grid along the closed outline, in order: x and y, int64."""
    fine = (_SCALE * points + 0.5).astype(np.int64)  # towards zero, as C casts
    start, end = fine, np.roll(fine, -1, axis=0)
    delta = np.abs(end - start)
    steep = delta[:, 0] < delta[:, 1]
    steps = delta.max(axis=1)
    # Each side is drawn from its lower end along its longer axis, so that neighbours share it to the pixel.
    major = np.where(steep, 1, 0)[:, np.newaxis]
    flip = np.take_along_axis(start > end, major, axis=1)
    low, high = np.where(flip, end, start), np.where(flip, start, end)
    low_major, low_minor = (np.take_along_axis(low, axis, axis=1)[:, 0] for axis in (major, 1 - major))
    slope = (np.take_along_axis(high, 1 - major, axis=1)[:, 0] - low_minor) / np.maximum(steps, 1)

    side = np.repeat(np.arange(len(points)), steps + 1)
    step = np.arange(len(side)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = np.where(flip[side, 0], steps[side] - step, step)
    on_major = low_major[side] + along
    on_minor = (low_minor[side] + slope[side] * along + 0.5).astype(np.int64)
    return np.where(steep[side], on_minor, on_major), np.where(steep[side], on_major, on_minor)
