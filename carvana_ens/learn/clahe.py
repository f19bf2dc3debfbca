"""Contrast-limited adaptive histogram equalising of a photo's brightness, level for level as OpenCV does it. No torch.

scikit-image's and kornia's clip and interpolate in other ways, and OpenCV is no dependency.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from carvana_ens.types import Image

CLIP = 2.0
TILES = 8
LEVELS = 256
SHIFT = 14
"""Fraction bits of the colour conversion."""
TO_Y = (4899, 9617, 1868)
TO_U, TO_V = 8061, 14369
FROM_V_RED, FROM_U_GREEN, FROM_V_GREEN, FROM_U_BLUE = 18678, -6472, -9519, 33292
"""2^14 times 0.299, 0.587, 0.114; 0.492, 0.877; 1.140, -0.395, -0.581, 2.032 (ITU-R BT.601, as OpenCV rounds them)."""
BLOCK = 16
"""Rows whose colours are converted at once: what they come to stays in the processor's cache."""

Plane: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[np.int32]


def equalised_image(image: Image) -> Image:
    """The photo with its Y of YUV equalised in 8 x 8 tiles at clip limit 2.

    Args:
        image: (H, W, 3) uint8 RGB, of any size; it is left as it is.

    Returns:
        (H, W, 3) uint8.

    Source: K. Zuiderveld, Contrast Limited Adaptive Histogram Equalization (Graphics Gems IV), in the form of OpenCV's
    ``createCLAHE(2.0, (8, 8))`` between its ``COLOR_RGB2YUV`` and ``COLOR_YUV2RGB``; as an input in a LinkNet34 of
    Carvana's first place.
    """
    y, u, v = (np.empty(image.shape[:2], np.uint8) for _ in range(3))
    blocks = [slice(row, row + BLOCK) for row in range(0, len(image), BLOCK)]
    for rows in blocks:
        y[rows], u[rows], v[rows] = _yuv(image[rows])
    y = _equalised_plane(y)
    result = np.empty(image.shape, np.uint8)
    for rows in blocks:
        _put_rgb(y[rows], u[rows], v[rows], result[rows])
    return result


def _yuv(image: Image) -> tuple[Numbers, Numbers, Numbers]:
    """Y, U + 128 and V + 128, each in 0..255."""
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))  # no product passes 2^23
    y = _rounded(red * TO_Y[0] + green * TO_Y[1] + blue * TO_Y[2])
    u = _rounded((blue - y) * TO_U) + 128  # 2 to 254
    v = _rounded((red - y) * TO_V) + 128
    return y, u, v.clip(0, 255, out=v)


def _put_rgb(y: Plane, u: Plane, v: Plane, image: Image) -> None:
    """Writes (H, W, 3) RGB of Y, U + 128 and V + 128."""
    bright, blueness, redness = y.astype(np.int32), u.astype(np.int32) - 128, v.astype(np.int32) - 128
    for channel, part in enumerate(
        (redness * FROM_V_RED, redness * FROM_V_GREEN + blueness * FROM_U_GREEN, blueness * FROM_U_BLUE)
    ):
        level = _rounded(part)
        level += bright
        image[..., channel] = level.clip(0, 255, out=level)


def _rounded(scaled: Numbers) -> Numbers:
    scaled += 1 << SHIFT - 1
    scaled >>= SHIFT
    return scaled


def _equalised_plane(y: Plane) -> Plane:
    """(H, W) levels, equalised: each pixel by the tables of the four tiles around it, interpolated."""
    height, width = y.shape
    # OpenCV adds a whole row or column of pixels a tile where one side divides evenly and the other does not.
    even = height % TILES == 0 and width % TILES == 0
    rows, columns = ((side if even else side + TILES - side % TILES) // TILES for side in (height, width))
    wide = np.pad(y, ((0, rows * TILES - height), (0, columns * TILES - width)), "reflect")
    tables = _tables(wide.reshape(TILES, rows, TILES, columns).swapaxes(1, 2).reshape(TILES * TILES, -1))
    tables = tables.reshape(TILES, TILES, LEVELS)
    result = np.empty_like(y)
    across = list(_spans(width, columns))
    for (down, above, below, lower), (right_of, left, right, further) in itertools.product(
        _spans(height, rows), across
    ):
        levels = y[down, right_of]
        nearer, low = 1 - further, lower[:, None]
        upper = tables[above, left].take(levels) * nearer
        upper += tables[above, right].take(levels) * further
        under = tables[below, left].take(levels) * nearer
        under += tables[below, right].take(levels) * further
        upper *= 1 - low
        under *= low
        upper += under
        result[down, right_of] = np.rint(upper, out=upper)  # between table entries, which are 0 to 255
    return result


def _spans(side: int, tile: int) -> Iterator[tuple[slice, int, int, NDArray[np.float32]]]:
    """Pixels of one axis that lie between the same two middles of tiles, with these tiles and the second's weights."""
    place = np.arange(side, dtype=np.float32) * (np.float32(1) / np.float32(tile)) - np.float32(0.5)
    before = np.floor(place).astype(np.int64)
    starts = np.flatnonzero(np.diff(before, prepend=before[0] - 1))
    for start, end in itertools.pairwise([*starts.tolist(), side]):
        first = int(before[start])
        weights = place[start:end] - np.float32(first)
        yield slice(start, end), max(first, 0), min(first + 1, TILES - 1), weights


def _tables(tiles: Plane) -> NDArray[np.float32]:
    """(T, P) levels of T tiles to (T, 256) tables: the sums of clipped histograms, scaled to 255.

    What is clipped off is spread evenly over all levels, and its remainder over levels at even distances.
    """
    pixels = tiles.shape[1]
    histogram = np.stack([np.bincount(tile, minlength=LEVELS) for tile in tiles])
    limit = max(int(CLIP * pixels / LEVELS), 1)
    excess = (histogram - limit).clip(min=0).sum(1, keepdims=True)
    rest = excess % LEVELS
    step = (LEVELS // rest.clip(min=1)).clip(min=1)
    level = np.arange(LEVELS)
    chosen = (level % step == 0) & (level // step < rest)
    histogram = histogram.clip(max=limit) + excess // LEVELS + chosen
    scale = np.float32(255) / np.float32(pixels)
    table: NDArray[np.float32] = np.rint(histogram.cumsum(1).astype(np.float32) * scale).clip(0, 255)
    return table
