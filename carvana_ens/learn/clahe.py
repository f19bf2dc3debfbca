"""Contrast-limited adaptive histogram equalising of a photo's brightness, level for level as OpenCV does it.

scikit-image's and kornia's clip and interpolate in other ways, and OpenCV is no dependency.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


def equalised_image(image: Image) -> Image:
    """``equalised`` of one (H, W, 3) uint8 RGB photo."""
    layers = torch.from_numpy(image.transpose(2, 0, 1).copy())
    return equalised(layers).permute(1, 2, 0).contiguous().numpy()


def equalised(image: Tensor) -> Tensor:
    """The photo with its Y of YUV equalised in 8 x 8 tiles at clip limit 2.

    Args:
        image: (3, H, W) uint8 RGB, of any size.

    Returns:
        (3, H, W) uint8.

    Source: K. Zuiderveld, Contrast Limited Adaptive Histogram Equalization (Graphics Gems IV), in the form of OpenCV's
    ``createCLAHE(2.0, (8, 8))`` between its ``COLOR_RGB2YUV`` and ``COLOR_YUV2RGB``; as an input in a LinkNet34 of
    Carvana's first place.
    """
    red, green, blue = image.int()  # no product below passes 2^23
    y = _rounded(TO_Y[0] * red + TO_Y[1] * green + TO_Y[2] * blue)
    u = (_rounded((blue - y) * TO_U) + 128).clamp(0, 255) - 128
    v = (_rounded((red - y) * TO_V) + 128).clamp(0, 255) - 128
    y = _equalised_levels(y)
    red = y + _rounded(v * FROM_V_RED)
    green = y + _rounded(v * FROM_V_GREEN + u * FROM_U_GREEN)
    blue = y + _rounded(u * FROM_U_BLUE)
    return torch.stack([red, green, blue]).clamp(0, 255).to(torch.uint8)


def _rounded(scaled: Tensor) -> Tensor:
    return (scaled + (1 << SHIFT - 1)) >> SHIFT


def _equalised_levels(y: Tensor) -> Tensor:
    """(H, W) int32 in 0..255, equalised: each pixel by the tables of the four tiles around it, interpolated."""
    height, width = y.shape
    # OpenCV adds a whole row or column of pixels a tile where one side divides evenly and the other does not.
    even = height % TILES == 0 and width % TILES == 0
    rows, columns = ((side if even else side + TILES - side % TILES) // TILES for side in (height, width))
    wide = y[_mirrored(height, rows * TILES, y.device)][:, _mirrored(width, columns * TILES, y.device)]
    tables = _tables(wide.reshape(TILES, rows, TILES, columns).permute(0, 2, 1, 3).reshape(TILES * TILES, -1))
    above, below, down = _neighbours(height, rows, y.device)
    left, right, across = _neighbours(width, columns, y.device)
    above, below, down = above[:, None] * TILES, below[:, None] * TILES, down[:, None]

    def look_up(tile: Tensor) -> Tensor:
        return tables.take(tile * LEVELS + y)

    upper = look_up(above + left) * (1 - across) + look_up(above + right) * across
    lower = look_up(below + left) * (1 - across) + look_up(below + right) * across
    return (upper * (1 - down) + lower * down).round().clamp(0, 255).int()


def _mirrored(side: int, wanted: int, device: torch.device) -> Tensor:
    """Indices 0 .. side - 1, mirrored on beyond the last, which is not repeated."""
    period = max(2 * (side - 1), 1)
    index = torch.arange(wanted, device=device) % period
    return torch.minimum(index, period - index).clamp(max=side - 1)


def _neighbours(side: int, tile: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pixel: the tiles whose middles lie before and after it, and the weight of the second, float32."""
    place = torch.arange(side, dtype=torch.float32, device=device) * (1 / torch.tensor(tile, dtype=torch.float32)) - 0.5
    before = place.floor()
    first = before.to(torch.int64)
    return first.clamp(min=0), (first + 1).clamp(max=TILES - 1), place - before


def _tables(tiles: Tensor) -> Tensor:
    """(T, P) int32 levels of T tiles to (T, 256) float32 tables: the sums of clipped histograms, scaled to 255.

    What is clipped off is spread evenly over all levels, and its remainder over levels at even distances.
    """
    count, pixels = tiles.shape
    offsets = torch.arange(count, device=tiles.device)[:, None] * LEVELS
    histogram = torch.bincount((tiles + offsets).flatten(), minlength=count * LEVELS).reshape(count, LEVELS)
    limit = max(int(CLIP * pixels / LEVELS), 1)
    excess = (histogram - limit).clamp(min=0).sum(1, keepdim=True)
    rest = excess % LEVELS
    step = (LEVELS // rest.clamp(min=1)).clamp(min=1)
    level = torch.arange(LEVELS, device=tiles.device)
    chosen = (level % step == 0) & (level // step < rest)
    histogram = histogram.clamp(max=limit) + excess // LEVELS + chosen
    scale = torch.tensor(255.0) / pixels
    return (histogram.cumsum(1).float() * scale.to(tiles.device)).round().clamp(0, 255)
