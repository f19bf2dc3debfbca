"""What the pictures are drawn with: scaled photos, masks and maps, outlines, captions, and cells laid out in lines.

Everything works at the size at which it is shown, so that a picture of many photos holds none of them at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from carvana_ens.errors import DataError, UsageError
from carvana_ens.files import replacing
from carvana_ens.types import Image, Mask, ProbabilityMap, Size

PAPER = (255, 255, 255)
INK = (32, 32, 32)
OUTLINE = (0, 255, 64)
CASING = (0, 0, 0)
GAP = 12
JPEG_SIDE = 65_500
"""The longest side that the JPEG library writes."""


def check_suffix(path: Path) -> None:
    """Refuses a picture's path before any work is done for it.

    Raises:
        UsageError: the name ends neither in ``.png`` nor in ``.jpg``.
    """
    if path.suffix not in {".png", ".jpg"}:
        raise UsageError(f"picture {str(path)!r} is neither .png nor .jpg: name it so")


def save(picture: Pictures.Image, path: Path) -> None:
    """Writes a picture whole or not at all.

    Raises:
        UsageError: another suffix than ``.png`` and ``.jpg``, or a ``.jpg`` longer than JPEG allows.
        CarvanaEnsError: the file cannot be written.
    """
    check_suffix(path)
    if path.suffix == ".jpg" and max(picture.size) > JPEG_SIDE:
        raise UsageError(f"{path} would be {Size(picture.height, picture.width)}, too large for a .jpg: name it .png")
    with replacing(path) as temporary:
        if path.suffix == ".png":
            picture.save(temporary, format="PNG")
        else:
            # Full colour resolution: with the usual halved one, captions and outlines smear.
            picture.save(temporary, format="JPEG", quality=92, subsampling=0)


def scaled_size(size: Size, height: int) -> Size:
    """The size at ``height`` in the same proportions, at least one pixel wide."""
    return Size(height, max(1, round(size.width * height / size.height)))


def scaled_photo(photo: Image, size: Size) -> Image:
    """(H, W, 3) uint8 photo brought to ``size``."""
    resized = Pictures.fromarray(photo).resize((size.width, size.height), Pictures.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(resized)


def scaled_map(probabilities: ProbabilityMap, size: Size) -> ProbabilityMap:
    """(H, W) float32 map brought to ``size``; a pixel that covers several is their mean."""
    source = Pictures.fromarray(np.ascontiguousarray(probabilities, dtype=np.float32))
    return np.asarray(source.resize((size.width, size.height), Pictures.Resampling.BOX))


def scaled_cover(mask: Mask, size: Size) -> ProbabilityMap:
    """The part of each pixel of ``size`` that the mask covers, (H, W) float32 in [0, 1]."""
    return scaled_map(mask.astype(np.float32), size)


def outline(mask: Mask, size: Size) -> Mask:
    """The mask's outline at ``size``, bool: pixels that hold an object pixel beside the background or the frame.

    A line of one pixel for smooth borders. Small parts are never lost, however much the mask is reduced.
    """
    height, width = mask.shape
    if height < size.height or width < size.width:
        enlarged = Pictures.fromarray(mask).resize((size.width, size.height), Pictures.Resampling.NEAREST)
        mask = np.asarray(enlarged, dtype=np.bool_)
        height, width = mask.shape
    framed = np.pad(mask, 1)
    inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    rows, columns = np.nonzero(mask & ~inner)
    line = np.zeros(size, dtype=np.bool_)
    line[rows * size.height // height, columns * size.width // width] = True
    return line


def grown(mask: Mask) -> Mask:
    """The mask and its neighbours above, below, left and right."""
    framed = np.pad(mask, 1)
    return mask | framed[:-2, 1:-1] | framed[2:, 1:-1] | framed[1:-1, :-2] | framed[1:-1, 2:]


def with_outline(photo: Image, mask: Mask) -> Image:
    """A scaled photo with the mask's outline on it: a green line of 2.5 pixels between two dark ones of 1.

    The dark edges keep the line visible on white cars, the green on dark and red ones. Drawn at twice the size and
    reduced, for smooth edges.
    """
    size = Size(*photo.shape[:2])
    line = grown(grown(outline(mask, Size(2 * size.height, 2 * size.width))))
    cased = painted(photo, CASING, scaled_cover(grown(grown(line)), size))
    return painted(cased, OUTLINE, scaled_cover(line, size))


def edged(photo: Image, mask: Mask) -> Image:
    """A scaled photo with a thin white line around the mask."""
    size = Size(*photo.shape[:2])
    line = grown(outline(mask, Size(2 * size.height, 2 * size.width)))
    return painted(photo, PAPER, scaled_cover(line, size))


def painted(photo: Image, colour: tuple[int, int, int], cover: ProbabilityMap) -> Image:
    """The photo with a colour over it, as opaque as ``cover`` (H, W) in [0, 1] says."""
    weight = cover[..., None]
    return np.rint(photo * (1 - weight) + np.array(colour, dtype=np.float32) * weight).astype(np.uint8)


def jet(values: ProbabilityMap) -> Image:
    """Colours for values in [0, 1]: dark blue, blue, cyan, yellow, red, dark red; (H, W, 3) uint8.

    MATLAB's and OpenCV's "jet" as its usual closed form: each channel is ``clip(1.5 - |4 v - c|, 0, 1)`` with centre
    c = 3 for red, 2 for green, 1 for blue.
    """
    distances = np.abs(4 * values[..., None] - np.array([3, 2, 1], dtype=np.float32))
    return np.rint(255 * np.clip(1.5 - distances, 0, 1)).astype(np.uint8)


def mixed(photo: Image, colours: Image, alpha: float) -> Image:
    """``alpha`` parts of colours over ``1 - alpha`` parts of the photo."""
    return np.rint(alpha * colours.astype(np.float32) + (1 - alpha) * photo.astype(np.float32)).astype(np.uint8)


@dataclass(frozen=True)
class Cell:
    """A scaled picture with a caption above it."""

    caption: str
    pixels: Image


def laid_out(lines: Sequence[Sequence[Cell | None]], font_size: int) -> Pictures.Image:
    """Lines of cells on white paper: columns as wide as their widest cell, lines as high as their highest.

    None leaves a cell's place empty. A line without captions keeps no room for them.
    """
    widths = [0] * max(len(line) for line in lines)
    for line in lines:
        for column, cell in enumerate(line):
            widths[column] = max(widths[column], 0 if cell is None else cell.pixels.shape[1])
    heights = [max(0 if cell is None else cell.pixels.shape[0] for cell in line) for line in lines]
    captioned = sum(caption_font(font_size).getmetrics()) + 4
    captions = [captioned if any(cell is not None and cell.caption for cell in line) else 0 for line in lines]
    width = sum(widths) + GAP * (len(widths) + 1)
    height = sum(heights) + sum(captions) + GAP * (len(lines) + 1)
    sheet = Pictures.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for line, line_height, caption_height in zip(lines, heights, captions, strict=True):
        left = GAP
        for cell, column_width in zip(line, widths, strict=False):
            if cell is not None:
                caption = fitted(cell.caption, column_width, font_size)
                draw.text((left, top), caption, fill=INK, font=caption_font(font_size))
                sheet.paste(Pictures.fromarray(cell.pixels), (left, top + caption_height))
            left += column_width + GAP
        top += caption_height + line_height + GAP
    return sheet


def fitted(text: str, width: int, font_size: int) -> str:
    """The text, its middle replaced by an ellipsis until it is at most ``width`` pixels wide."""
    font = caption_font(font_size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head, tail = (kept + 1) // 2, kept // 2
        shorter = text[:head].rstrip() + "…" + text[len(text) - tail :].lstrip()
        if font.getlength(shorter) <= width:
            return shorter
    return ""


@cache
def caption_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of captions, ``size`` pixels high.

    Raises:
        UsageError: this Pillow has none that scales.
    """
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):  # pragma: no cover - a Pillow built without FreeType
        raise UsageError("this Pillow has no FreeType and cannot write captions: install Pillow's own wheel")
    return font


def check_photo(image_id: str, photo: Image) -> Size:
    """The size of an (H, W, 3) uint8 photo.

    Raises:
        UsageError: another shape or dtype.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise UsageError(
            f"photo {image_id!r} is {photo.dtype} of shape {photo.shape}: give uint8 RGB of (height, width, 3)"
        )
    return Size(photo.shape[0], photo.shape[1])


def check_grid(what: str, array: Mask | ProbabilityMap, dtype: type[np.bool_ | np.float32], size: Size) -> None:
    """Checks that a mask or a map is of the dtype and on the grid of its photo; ``what`` names it in the error.

    Raises:
        UsageError: another dtype, or not two axes.
        DataError: another size.
    """
    if array.dtype != dtype or array.ndim != 2:
        raise UsageError(
            f"{what} is {array.dtype} of shape {array.shape}: give {np.dtype(dtype)} of (height, width), on the "
            f"photo's grid"
        )
    if array.shape != size:
        raise DataError(f"{what} is {Size(*array.shape)} but its photo is {size}: they must be of one size")
