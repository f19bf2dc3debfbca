"""Probability maps made elsewhere: a folder of picture files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

from carvana_ens.data.map_source import Kind, Values
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.data.picture_files import list_pictures, opened
from carvana_ens.errors import DataError
from carvana_ens.types import Size

_KINDS: dict[str, Kind] = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16"}
"""By mode of Pillow. Not F: of a TIFF of floats, compressed and big-endian, Pillow swaps the bytes."""
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262  # TIFF tag; 1: zero is black
_DEEP_FORMATS = {".png": "8- or 16-bit grey PNG", ".tif": "8- or 16-bit grey TIFF", ".tiff": "8- or 16-bit grey TIFF"}


class MapFolder:
    """The probability maps of a folder by image id, the file stem; one channel.

    deep: not only PNG of 8 bits (255 = certainly the object), but of 16 (65535) too, and TIFF of 8 or 16.
    """

    def __init__(self, folder: Path, *, deep: bool = False) -> None:
        """Lists the folder once.

        Raises:
            DataError: no such folder, no map in it, a picture of another format, or a stem that cannot be an id.
        """
        self.folder = folder
        self._deep = deep
        self._paths = list_pictures(folder, "maps")
        for path in self._paths.values():
            if path.suffix.lower() not in (_DEEP_FORMATS if deep else (".png",)):
                also = ", 16-bit grey PNG or grey TIFF" if deep else ""
                raise DataError(
                    f"map {path} is no PNG file: save maps as 8-bit grey PNG{also} (lossy formats change them)"
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(self._paths)

    @property
    def kind(self) -> Kind:
        """What the values are, by the first map's header."""
        return self._header(next(iter(self._paths)))[0]

    def path(self, image_id: str) -> Path:
        """The file of one map.

        Raises:
            DataError: there is none.
        """
        if image_id not in self._paths:
            raise unknown_id(image_id, f"the folder of maps {self.folder}", self._paths)
        return self._paths[image_id]

    def size(self, image_id: str) -> Size:
        """The size of one map, from the file's header; raises what ``read`` raises of a header."""
        return self._header(image_id)[1]

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource."""
        return ((image_id, partial(self.read, image_id)) for image_id in sizes)

    def read(self, image_id: str) -> Values:
        """(H, W) codes, 255 (uint8) or 65535 (uint16) = certainly the object.

        Raises:
            DataError: the file is damaged, or is not one channel of grey.
        """
        path = self.path(image_id)
        with opened(path, deep=self._deep) as picture:
            self._check(picture, path)
            values = np.array(picture)  # 16 bits in the byte order of this machine, whatever the file's
            return values.astype(values.dtype.newbyteorder("="), copy=False)

    def _header(self, image_id: str) -> tuple[Kind, Size]:
        path = self.path(image_id)
        with opened(path, deep=self._deep) as picture:
            return self._check(picture, path), Size(picture.height, picture.width)

    def _check(self, picture: PIL.Image.Image, path: Path) -> Kind:
        kind = _KINDS.get(picture.mode)
        if kind is None or (not self._deep and kind != "uint8") or "transparency" in picture.info:
            wanted = _DEEP_FORMATS[path.suffix.lower()] if self._deep else "8-bit grey PNG"
            raise DataError(f"map {path} has mode {picture.mode}, not of grey whole numbers: save it as {wanted}")
        if picture.format == "TIFF":
            tags = picture.tag_v2  # type: ignore[attr-defined]
            if tags.get(_PHOTOMETRIC, 1) != 1 or tags.get(_ORIENTATION, 1) != 1:
                raise DataError(f"map {path} is stored inverted or turned: save it with zero as black, and upright")
        return kind
