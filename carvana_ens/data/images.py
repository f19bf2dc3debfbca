"""Photos: any common picture file as (H, W, 3) RGB, and a folder of them by image id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from carvana_ens.data.mask_source import unknown_id
from carvana_ens.data.picture_files import has_alpha, list_pictures, load_upright, opened, upright_size
from carvana_ens.types import Image, Json, Say, Size, Track, unsaid, untracked


def read_image(path: Path, say: Say = unsaid) -> Image:
    """A photo, (H, W, 3) uint8 RGB, 0..255, turned as EXIF asks; writable and owned by the caller.

    Grey and palette pictures become RGB. Transparency is dropped and CMYK converted, each with one line to ``say``.

    Raises:
        DataError: see :func:`carvana_ens.data.picture_files.opened`.
    """
    picture, note = _decode(path)
    if note:
        say(f"{path} {note}")
    return np.array(picture)


def image_size(path: Path) -> Size:
    """The size that :func:`read_image` gives, from the file's header.

    Raises:
        DataError: see :func:`carvana_ens.data.picture_files.opened`; damage behind the header is not seen.
    """
    with opened(path) as picture:
        return upright_size(picture, path)


class ImageFolder:
    """The photos of a folder by image id (the file stem); they may differ in size. Reading is safe in threads."""

    def __init__(self, folder: Path, say: Say = unsaid) -> None:
        """Lists the folder once.

        Args:
            folder: files that are no pictures by their extension, hidden files and subfolders do not count.
            say: told of each kind of conversion that loses something, once for the folder.

        Raises:
            DataError: no such folder, no picture in it, two pictures of one stem, or a stem that cannot be an id.
        """
        self.folder = folder
        self._paths = list_pictures(folder, "photos")
        self._say = say
        self._said: dict[str, object] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids, sorted."""
        return tuple(self._paths)

    def path(self, image_id: str) -> Path:
        """The photo's file.

        Raises:
            DataError: the folder has no such photo.
        """
        try:
            return self._paths[image_id]
        except KeyError:
            raise unknown_id(image_id, f"the folder of photos {self.folder}", self._paths) from None

    def read(self, image_id: str) -> Image:
        """The photo, see :func:`read_image`."""
        return np.array(self.picture(image_id))

    def picture(self, image_id: str) -> PIL.Image.Image:
        """The photo as Pillow has it, upright and RGB; otherwise as ``read``."""
        path = self.path(image_id)
        picture, note = _decode(path)
        if note and self._first(note):
            self._say(f"{path} {note} (said once for this folder)")
        return picture

    def size(self, image_id: str) -> Size:
        """The photo's size from its header."""
        return image_size(self.path(image_id))

    def sizes(self, track: Track = untracked) -> dict[str, Size]:
        """The size of every photo, in the order of ``ids``."""
        return {image_id: self.size(image_id) for image_id in track(self.ids, len(self.ids), "photo sizes")}

    def _first(self, note: str) -> bool:
        mine = object()
        return self._said.setdefault(note, mine) is mine  # one atomic step: no lock, which could not be pickled

    def __getstate__(self) -> dict[str, Json]:
        return {**self.__dict__, "_say": unsaid}  # a worker process has nobody to tell


def _decode(path: Path) -> tuple[PIL.Image.Image, str]:
    """The photo, and what the conversion to RGB lost ("" for nothing)."""
    with opened(path) as picture:
        load_upright(picture)
        note = ""
        if has_alpha(picture):
            note = "has transparency, which is dropped"
        elif picture.mode == "CMYK":
            note = "has CMYK colours, which are converted to RGB without a colour profile"
        return _rgb(picture), note


def _rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode == "RGB":
        return picture  # convert would copy it
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns about the direct way
    return picture.convert("RGB")
