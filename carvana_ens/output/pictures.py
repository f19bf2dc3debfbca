"""Pictures to look at: what each member and the blend say of a photo, and a mosaic of photos and cut-out objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana_ens.core.dice import dice
from carvana_ens.errors import DataError, UsageError
from carvana_ens.output import drawing
from carvana_ens.output.drawing import Cell
from carvana_ens.types import Image, Mask, ProbabilityMap, Size

MAP_ALPHA = 0.6
DIMMED = 0.25


@dataclass(frozen=True)
class PictureRow:
    """What is shown of one photo; every array is on the photo's own grid."""

    image_id: str
    photo: Image
    truth: Mask | None
    members: Sequence[tuple[str, ProbabilityMap]]
    """Member name and its map, (H, W) float32 in [0, 1]."""
    blend: Mask | None
    blend_title: str = "blend"


def comparison(rows: Iterable[PictureRow], path: Path, *, height: int = 320, columns: int = 8) -> None:
    """Writes one line of cells a photo: the photo, its truth, each member's map, the blend's outline on the photo.

    Maps are shown as jet colours over the photo. Where the truth is known, captions end in the Dice with it: of a map
    cut at 0.5, and of the blend as it is given. Photos are taken one at a time and kept only at the size shown.

    Args:
        rows: what to show; photos may differ in size and in members.
        path: ``.png`` or ``.jpg``.
        height: height of a cell in pixels.
        columns: cells in a line; further cells of a photo go on in the next line.

    Raises:
        UsageError: another suffix, a height under 32, no column, no row, or arrays of another kind than said here.
        DataError: a mask or map that is not of its photo's size, or a map with values outside [0, 1].
        CarvanaEnsError: the file cannot be written.
    """
    drawing.check_suffix(path)
    if height < 32 or columns < 1:
        raise UsageError(f"height {height} and columns {columns}: give a height of at least 32 and at least one column")
    photos = [_comparison_cells(row, height) for row in rows]
    if not photos:
        raise UsageError("there is nothing to show: name at least one image")
    lines: list[list[Cell | None]] = []
    for cells in _aligned(photos):
        lines += [cells[start : start + columns] for start in range(0, len(cells), columns)]
    if any(cells.members for cells in photos):
        lines.append([Cell("maps: 0 to 1", _ramp(height))])
    drawing.save(drawing.laid_out(lines, _font_size(height)), path)


@dataclass(frozen=True)
class _Cells:
    photo: Cell
    truth: Cell | None
    members: list[Cell]
    blend: Cell | None


def _aligned(photos: Sequence[_Cells]) -> Iterator[list[Cell | None]]:
    """Each photo's cells, so that what is of one kind stands in one column also where a photo lacks another kind."""
    truth = any(cells.truth is not None for cells in photos)
    members = max(len(cells.members) for cells in photos)
    blend = any(cells.blend is not None for cells in photos)
    for cells in photos:
        line: list[Cell | None] = [cells.photo]
        if truth:
            line.append(cells.truth)
        line += cells.members
        if blend:
            line += [None] * (members - len(cells.members))
            line.append(cells.blend)
        yield line


def _comparison_cells(row: PictureRow, height: int) -> _Cells:
    full = drawing.check_photo(row.image_id, row.photo)
    size = drawing.scaled_size(full, height)
    photo = drawing.scaled_photo(row.photo, size)
    truth = blend = None
    if row.truth is not None:
        drawing.check_grid(f"the truth of image {row.image_id!r}", row.truth, np.bool_, full)
        truth = Cell("truth", _lit(photo, row.truth, size))
    members = []
    for name, probabilities in row.members:
        _check_map(row.image_id, name, probabilities, full)
        colours = drawing.jet(drawing.scaled_map(probabilities, size))
        caption = name + _dice_note(probabilities >= np.float32(0.5), row.truth)
        members.append(Cell(caption, drawing.mixed(photo, colours, MAP_ALPHA)))
    if row.blend is not None:
        drawing.check_grid(f"the blend of image {row.image_id!r}", row.blend, np.bool_, full)
        caption = row.blend_title + _dice_note(row.blend, row.truth)
        blend = Cell(caption, drawing.with_outline(photo, row.blend))
    return _Cells(Cell(row.image_id, photo), truth, members, blend)


def _lit(photo: Image, mask: Mask, size: Size) -> Image:
    """The photo with everything but the mask dimmed, and a thin line between (a black car on dim ground needs it)."""
    light = DIMMED + (1 - DIMMED) * drawing.scaled_cover(mask, size)
    return drawing.edged(np.rint(photo * light[..., None]).astype(np.uint8), mask)


def _ramp(height: int) -> Image:
    """The maps' colours from 0 to 1 as they look over a light photo."""
    values = np.tile(np.linspace(0, 1, height, dtype=np.float32), (max(6, height // 24), 1))
    return drawing.mixed(np.full((*values.shape, 3), 200, dtype=np.uint8), drawing.jet(values), MAP_ALPHA)


def _dice_note(mask: Mask, truth: Mask | None) -> str:
    return "" if truth is None else f"  Dice {dice(mask, truth):.4f}"


def _check_map(image_id: str, name: str, probabilities: ProbabilityMap, size: Size) -> None:
    what = f"{name}'s map of image {image_id!r}"
    drawing.check_grid(what, probabilities, np.float32, size)
    low, high = probabilities.min(), probabilities.max()
    if not (low >= 0 and high <= 1):
        raise DataError(f"{what} has values from {low} to {high}: give probabilities in [0, 1]")


def _font_size(height: int) -> int:
    return min(22, max(11, height // 18))


def mosaic(cells: Iterable[tuple[str, Image, Mask]], path: Path, *, columns: int = 4, scale: float = 0.25) -> None:
    """Writes a mosaic: lines of plain photos alternate with lines of the same photos cut out on black.

    Each photo is reduced as it comes, so only the mosaic itself is held.

    Args:
        cells: image id, photo (H, W, 3) uint8, mask (H, W) bool, in the order to show; photos may differ in size.
        path: ``.png`` or ``.jpg``.
        columns: photos in a line.
        scale: shown size over true size, in (0, 1].

    Raises:
        UsageError: another suffix, no column, a scale outside (0, 1], no cell, or arrays of another kind.
        DataError: a mask that is not of its photo's size.
        CarvanaEnsError: the file cannot be written.
    """
    drawing.check_suffix(path)
    if columns < 1 or not 0 < scale <= 1:
        raise UsageError(f"columns {columns} and scale {scale}: give at least one column and a scale in (0, 1]")
    plain: list[Cell] = []
    masked: list[Cell] = []
    for image_id, photo, mask in cells:
        full = drawing.check_photo(image_id, photo)
        drawing.check_grid(f"the mask of image {image_id!r}", mask, np.bool_, full)
        size = Size(max(1, round(full.height * scale)), max(1, round(full.width * scale)))
        plain.append(Cell(image_id, drawing.scaled_photo(photo, size)))
        masked.append(Cell("", drawing.scaled_photo(photo * mask[..., None], size)))
    if not plain:
        raise UsageError("there is nothing to show: name at least one image")
    lines: list[list[Cell]] = []
    for start in range(0, len(plain), columns):
        lines += [plain[start : start + columns], masked[start : start + columns]]
    drawing.save(drawing.laid_out(lines, 13), path)
