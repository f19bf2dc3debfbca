"""Tiles: overlapping parts of a picture that is too large to be predicted at once. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ens.model import MemberConfig
from carvana_ens.types import ProbabilityMap, Size

SHARE = 8
"""Neighbours overlap by this part of a tile's side, if the member does not say by how much."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the picture, and the weights, (h,) and (w,) float32, that its maps have there.

    The product of both weights, summed over all tiles of a picture, is 1 for each pixel.
    """

    rows: slice
    columns: slice
    down: NDArray[np.float32]
    across: NDArray[np.float32]

    @property
    def weights(self) -> ProbabilityMap:
        """(h, w) float32 in (0, 1]."""
        return self.down[:, None] * self.across


@dataclass(frozen=True)
class Tiling:
    """tile: the size of tiles. overlap: pixels that neighbours share at least, fewer than the tile's sides."""

    tile: Size
    overlap: Size

    def tiles(self, grid: Size) -> Iterator[Tile]:
        """The tiles of a picture, row by row, all of one size; of a side that one tile covers, the whole side."""
        axes = [_along(side, *self._of(side, axis)) for axis, side in enumerate(grid)]
        for (rows, down), (columns, across) in itertools.product(*axes):
            yield Tile(rows, columns, down, across)

    def grid(self, grid: Size) -> Size:
        """The size of a picture's tiles."""
        return Size(*(min(side, most) for side, most in zip(grid, self.tile, strict=True)))

    def _of(self, side: int, axis: int) -> tuple[int, int]:
        return min(side, self.tile[axis]), self.overlap[axis]


def tiling_of(config: MemberConfig) -> Tiling | None:
    """How a member cuts pictures; None where it does not."""
    if config.tile is None:
        return None
    shared = [side // SHARE if config.overlap is None else config.overlap for side in config.tile]
    return Tiling(config.tile, Size(*shared))


def _along(side: int, length: int, overlap: int) -> list[tuple[slice, NDArray[np.float32]]]:
    """Tiles along one axis: as few as overlap so far, spread evenly; weights fall off linearly where they overlap."""
    count = 1 if length == side else math.ceil((side - overlap) / (length - overlap))
    starts = [0] if count == 1 else [round(k * (side - length) / (count - 1)) for k in range(count)]
    inner = np.arange(length)
    slope = np.minimum(np.minimum(inner, inner[::-1]) + 1, overlap + 1).astype(np.float64)
    total = np.zeros(side)
    for start in starts:
        total[start : start + length] += slope
    return [
        (slice(start, start + length), (slope / total[start : start + length]).astype(np.float32)) for start in starts
    ]
