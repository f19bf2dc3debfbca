"""Cutouts as pictures: transparent, on another background, or the mask alone; and a sheet to look at them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageColor, ImageOps

from carvana_ens.data.images import read_image
from carvana_ens.data.picture_files import opened
from carvana_ens.errors import DataError, UsageError
from carvana_ens.files import replacing
from carvana_ens.output import drawing
from carvana_ens.output.drawing import Cell
from carvana_ens.output.rims import Alpha, clean_colours, object_box
from carvana_ens.types import Image, Size

DARK, LIGHT = (24, 24, 28), (250, 250, 250)
"""Backgrounds of the sheet: a halo that one hides is seen on the other."""
_ORIENTATION = 0x0112
_EXIF = b"Exif\x00\x00"


@dataclass(frozen=True)
class Finish:
    """What becomes of a cutout.

    background: a colour or a picture to put it on, None for transparency. mask_only: its opacity as grey, in place of
    the picture. margin: pixels to leave around the object when the rest is cropped, None for the photo's own size.
    suffix: of the files, ``.png`` or, on a background, ``.jpg``.
    """

    background: tuple[int, int, int] | Image | None = None
    mask_only: bool = False
    margin: int | None = None
    suffix: str = ".png"

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            UsageError: a mask on a background, a JPEG without one, another suffix, or a margin under 0.
        """
        if self.mask_only and self.background is not None:
            raise UsageError("--mask-only writes no colours, so that --background means nothing: leave one out")
        if self.suffix not in (".png", ".jpg") or (self.suffix == ".jpg" and self.background is None):
            raise UsageError(f"cutouts cannot be {self.suffix} files here: use png, or jpg with a --background")
        if self.margin is not None and self.margin < 0:
            raise UsageError(f"a margin is 0 pixels or more, got {self.margin}")


def read_background(text: str) -> tuple[int, int, int] | Image:
    """A colour (a name of CSS, ``#rrggbb``, ``rgb(...)``), or the picture of that path.

    Raises:
        UsageError: neither a colour nor a file, or a colour that is not opaque.
        DataError: a picture that cannot be read.
    """
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                f"background {text!r} is no colour and no file: write for example white, #30343a or studio.jpg"
            ) from None
        return read_image(path)
    if len(colour) != 3:
        raise UsageError(f"background {text!r} is not opaque: leave out its last number")
    return colour


def finished(photo: Image, alpha: Alpha, finish: Finish) -> PIL.Image.Image:
    """The cutout: RGBA, RGB on a background, or grey for the mask alone.

    A background picture is scaled to cover the cutout, and its middle is seen.

    Args:
        photo: (H, W, 3) uint8 RGB.
        alpha: its ``rim_alpha``.
        finish: what to make.

    Raises:
        DataError: there is no object to cut out.
    """
    box = object_box(alpha > 0, finish.margin or 0)
    if box is None and not (finish.mask_only and finish.margin is None):
        raise DataError("no object was found in it, so there is nothing to cut out")
    window = (slice(None), slice(None)) if box is None or finish.margin is None else box
    if finish.mask_only:
        return PIL.Image.fromarray(alpha[window])
    colours, opacity = clean_colours(photo, alpha)[window], alpha[window]
    if finish.background is None:
        return PIL.Image.fromarray(np.dstack([colours, opacity]))
    return PIL.Image.fromarray(composed(colours, opacity, _ground(finish.background, Size(*opacity.shape))))


def composed(colours: Image, alpha: Alpha, ground: Image) -> Image:
    """(H, W, 3) uint8: alpha / 255 parts of colours over the ground, which may be (1, 1, 3)."""
    share = alpha[..., None] / np.float32(255)
    return np.rint(colours * share + ground * (1 - share)).astype(np.uint8)


def _ground(background: tuple[int, int, int] | Image, size: Size) -> Image:
    if isinstance(background, tuple):
        return np.array(background, np.uint8).reshape(1, 1, 3)
    fitted = ImageOps.fit(PIL.Image.fromarray(background), (size.width, size.height), PIL.Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def kept_tags(path: Path) -> dict[str, bytes]:
    """What of a photo's file goes into its cutout's: ``exif`` (of JPEG, PNG and WebP) and ``icc_profile``.

    As pixels are turned upright when they are read, the orientation is taken out of the EXIF, which is otherwise left
    as it is. A profile of other colours than RGB would be wrong for what RGB was made of, and is left out.

    Raises:
        DataError: the photo cannot be read.
    """
    kept = {}
    with opened(path) as picture:
        tags = picture.getexif()
        exif = picture.info.get("exif")
        if exif and tags.get(_ORIENTATION, 1) != 1:
            del tags[_ORIENTATION]
            exif = tags.tobytes()
        if exif:
            kept["exif"] = _EXIF + exif.removeprefix(_EXIF)  # JPEG wants the mark that WebP files go without
        profile = picture.info.get("icc_profile")
        if profile and profile[16:20] == b"RGB ":  # the header's colour space, ICC.1:2022, 7.2.8
            kept["icc_profile"] = profile
    return kept


def write_cutout(path: Path, picture: PIL.Image.Image, tags: dict[str, bytes]) -> None:
    """Writes a cutout whole or not at all, as PNG or, where the name ends in ``.jpg``, as JPEG.

    tags: as ``kept_tags`` gave them; grey masks keep the EXIF alone.

    Raises:
        CarvanaEnsError: the file cannot be written.
    """
    if picture.mode == "L":
        tags = {name: value for name, value in tags.items() if name != "icc_profile"}
    with replacing(path) as temporary:
        if path.suffix == ".jpg":
            picture.save(temporary, format="JPEG", quality=95, subsampling=0, **tags)
        else:
            picture.save(temporary, format="PNG", **tags)


def contact_sheet(cutouts: Iterable[tuple[str, Path]], path: Path, *, height: int = 320, photos: int = 2) -> None:
    """Writes a sheet of transparent cutouts, each on a dark and on a light background, cropped to its object.

    Args:
        cutouts: caption and RGBA file.
        path: ``.png`` or ``.jpg``.
        height: of a cell, in pixels.
        photos: cutouts in a line.

    Raises:
        UsageError: another suffix, or no cutout.
        DataError: a file that is no transparent picture.
        CarvanaEnsError: the sheet cannot be written.
    """
    drawing.check_suffix(path)
    cells: list[Cell] = []
    for caption, file in cutouts:
        with opened(file) as picture:
            if picture.mode != "RGBA":
                raise DataError(f"{file} is no transparent picture ({picture.mode}): a sheet shows cutouts alone")
            small = _object(picture, height)
        for text, ground in ((caption, DARK), ("", LIGHT)):
            colour = np.array(ground, np.uint8).reshape(1, 1, 3)
            cells.append(Cell(text, composed(small[..., :3], small[..., 3], colour)))
    if not cells:
        raise UsageError("there is no cutout to show on a sheet")
    lines = [cells[start : start + 2 * photos] for start in range(0, len(cells), 2 * photos)]
    drawing.save(drawing.laid_out(lines, 16), path)


def _object(picture: PIL.Image.Image, height: int) -> NDArray[np.uint8]:
    """(height, W, 4) the object of a cutout with some room around it."""
    left, top, right, bottom = picture.getchannel("A").getbbox() or (0, 0, picture.width, picture.height)
    room = (bottom - top) // 12
    part = picture.crop((left - room, top - room, right + room, bottom + room))
    size = drawing.scaled_size(Size(part.height, part.width), height)
    return np.asarray(part.resize((size.width, size.height), PIL.Image.Resampling.LANCZOS, reducing_gap=3))
