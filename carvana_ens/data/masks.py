"""Masks: a folder of picture files, and the door to the other two forms, RLE tables and COCO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from carvana_ens.data.coco import CocoMasks
from carvana_ens.data.images import image_size
from carvana_ens.data.mask_source import MaskSource, check_mask_size, unknown_id
from carvana_ens.data.picture_files import has_alpha, list_pictures, load_upright, opened
from carvana_ens.data.rle_csv import SUFFIXES as TABLES
from carvana_ens.data.rle_csv import RLETable
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Mask, Size

__all__ = ["MaskFolder", "MaskSource", "open_masks", "read_mask"]

_SUFFIX = "_mask"  # Carvana names the mask of a_01.jpg a_01_mask.gif
_GREY_SHARE = 0.02


def open_masks(path: Path, categories: Sequence[str] = (), dialect: str | None = None) -> MaskSource:
    """The masks at a path.

    Args:
        path: a folder of pictures (``<id>`` or ``<id>_mask`` and an extension), an RLE table (``img,rle_mask``;
            ``.csv``, ``.csv.gz``, ``.zip``), or a COCO file (``.json``).
        categories: COCO only: the names of the categories that are the object; none: all but the background.
        dialect: RLE tables only, see ``core.rle_dialects``; None: carvana.

    Raises:
        UsageError: categories or a dialect for another form or unknown, or a path of none of these forms.
        DataError: nothing there, or what is there cannot be used.
    """
    if not path.exists():
        raise DataError(f"there are no masks at {path}: name a folder, an RLE table (.csv) or a COCO file (.json)")
    table = not path.is_dir() and path.name.lower().endswith(TABLES)
    if dialect is not None and not table:
        raise UsageError(f"dialect {dialect} is for RLE tables, but {path} is none: leave it out")
    if path.suffix.lower() == ".json" and path.is_file():
        return CocoMasks(path, categories)
    if categories:
        raise UsageError(f"categories ({', '.join(categories)}) are for COCO files, but {path} is none: leave them out")
    if path.is_dir():
        return MaskFolder(path)
    if table:
        return RLETable(path) if dialect is None else RLETable(path, dialect)
    raise UsageError(f"{path} is no folder and ends in none of {', '.join((*TABLES, '.json'))}: masks come as these")


class MaskFolder:
    """The mask pictures of a folder by image id: the file stem, less ``_mask`` at its end."""

    def __init__(self, folder: Path) -> None:
        """Lists the folder once.

        Raises:
            DataError: as for :class:`carvana_ens.data.images.ImageFolder`.
        """
        self.folder = folder
        self._paths = list_pictures(folder, "masks", _SUFFIX)

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a mask, sorted."""
        return tuple(self._paths)

    @property
    def describe(self) -> str:
        """The folder and the number of its masks."""
        return f"{len(self._paths)} mask pictures in {self.folder}"

    def _path(self, image_id: str) -> Path:
        if image_id not in self._paths:
            raise unknown_id(image_id, f"the folder of masks {self.folder}", self._paths)
        return self._paths[image_id]

    def own_size(self, image_id: str) -> Size | None:
        """The size of the mask's picture; see :class:`MaskSource`."""
        return image_size(self._path(image_id))

    def read(self, image_id: str, size: Size) -> Mask:
        """(H, W) bool, True = object; see :class:`MaskSource` and :func:`read_mask`."""
        path = self._path(image_id)
        mask = read_mask(path)
        check_mask_size(image_id, Size(*mask.shape), size, str(path))
        return mask


def read_mask(path: Path) -> Mask:
    """A black-and-white picture as (H, W) bool, True = object; turned as EXIF asks.

    White is the object: levels above 127, after a palette is looked up (the pixels of Carvana's GIF masks are palette
    indices). A lossless picture must have two grey levels at most, one dark and one bright, or only 0 and 1, where 1
    is the object. A lossy one (JPEG, WebP) may have greys: cut above 127 as long as no more than 2 % of its pixels
    lie in 64..191. Alpha must be constant.

    Raises:
        DataError: greys, colours or levels that do not tell object from background, transparency, and everything that
            :func:`carvana_ens.data.picture_files.opened` refuses.
    """
    with opened(path) as picture:
        lossy = picture.format in ("JPEG", "MPO", "WEBP") or "jpeg" in str(picture.info.get("compression"))
        load_upright(picture)
        opaque = _without_alpha(picture, path)
        if opaque.mode == "1":
            return np.array(opaque, np.bool_)
        values, grey = _values(opaque, path, lossy)
    used = _used(values)
    levels = sorted({int(grey[value]) for value in used})
    cut = 127
    if lossy:
        _check_lossy(values, levels, path)
    elif levels[-1] <= 1:
        cut = 0
    else:
        _check_lossless(levels, path)
    white = [value for value in used if grey[value] > cut]
    mask: Mask = values == white[0] if len(white) == 1 else np.isin(values, white)
    return mask


def _without_alpha(picture: PIL.Image.Image, path: Path) -> PIL.Image.Image:
    if not has_alpha(picture):
        return picture
    picture = picture.convert("RGBA")
    low, high = picture.getchannel("A").getextrema()
    if low != high:
        raise DataError(
            f"mask {path} is transparent in places: save it as black and white without an alpha channel, so that it "
            f"is plain which of the two is the object"
        )
    return picture.convert("RGB")


def _values(picture: PIL.Image.Image, path: Path, lossy: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pixels (H, W), and the grey level of each of their values; colours are refused, their brightness says little.

    A palette is not looked up for every pixel: a mask has two values, and it is enough to know what these are.
    """
    if picture.mode == "P":
        values = np.asarray(picture)
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if not np.ptp(colours[_used(values)], axis=1).any():
            return values, colours[:, 0]
    # Lossy colours are off by a little everywhere; brightness is then the only thing to go by.
    elif picture.mode == "L" or (picture.mode == "RGB" and (lossy or not np.ptp(np.asarray(picture), axis=2).any())):
        grey = picture if picture.mode == "L" else picture.convert("L")
        return np.asarray(grey), np.arange(256, dtype=np.uint8)
    raise DataError(f"mask {path} has colours (mode {picture.mode}): save the object white and all else black")


def _used(values: NDArray[np.uint8]) -> list[int]:
    """The values that occur, sorted. Two at most is what nearly every mask has, and is told without a histogram."""
    low, high = int(values.min()), int(values.max())
    if low == high or np.count_nonzero(values == low) + np.count_nonzero(values == high) == values.size:
        return sorted({low, high})
    return np.flatnonzero(np.bincount(values.ravel())).tolist()


def _check_lossless(levels: list[int], path: Path) -> None:
    if len(levels) > 2:
        raise DataError(
            f"mask {path} has {len(levels)} grey levels ({levels[0]}, {levels[1]}, ... {levels[-1]}), a mask has two: "
            f"if its edges are smooth, cut it at the level you mean and save it as black and white; if it holds "
            f"several classes, save the one that is the object"
        )
    if levels != [255] and not (len(levels) == 2 and levels[0] <= 127 < levels[1]):
        raise DataError(
            f"mask {path} has only the grey levels {' and '.join(map(str, levels))}, which do not tell the object "
            f"from the background: save the object as 255 and all else as 0"
        )


def _check_lossy(grey: NDArray[np.uint8], levels: list[int], path: Path) -> None:
    share = np.mean((grey >= 64) & (grey < 192))
    if share > _GREY_SHARE:
        raise DataError(
            f"mask {path} is grey (64..191) in {share:.1%} of its pixels, more than lossy compression explains: save "
            f"it as black and white PNG"
        )
    if levels not in ([0], [255]) and not (levels[0] < 64 and levels[-1] > 191):
        raise DataError(
            f"mask {path} has grey levels from {levels[0]} to {levels[-1]} and so not both black and white: save the "
            f"object as 255 and all else as 0, as PNG"
        )
