"""Probability maps made elsewhere: a folder of 8-bit PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carvana_ens.data.mask_source import unknown_id
from carvana_ens.data.picture_files import list_pictures, opened
from carvana_ens.errors import DataError


class MapFolder:
    """The probability maps of a folder by image id, the file stem; PNG with one channel of 8 bits."""

    def __init__(self, folder: Path) -> None:
        """Lists the folder once.

        Raises:
            DataError: no such folder, no map in it, a picture that is no PNG, or a stem that cannot be an id.
        """
        self.folder = folder
        self._paths = list_pictures(folder, "maps")
        for path in self._paths.values():
            if path.suffix.lower() != ".png":
                raise DataError(f"map {path} is no PNG file: save maps as 8-bit grey PNG (lossy formats change them)")

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(self._paths)

    def path(self, image_id: str) -> Path:
        """The file of one map.

        Raises:
            DataError: there is none.
        """
        if image_id not in self._paths:
            raise unknown_id(image_id, f"the folder of maps {self.folder}", self._paths)
        return self._paths[image_id]

    def read(self, image_id: str) -> NDArray[np.uint8]:
        """(H, W) uint8 codes, 255 = certainly the object.

        Raises:
            DataError: the file is damaged, or is not one channel of 8 bits.
        """
        path = self.path(image_id)
        with opened(path) as picture:
            if picture.mode != "L" or "transparency" in picture.info:
                raise DataError(f"map {path} has mode {picture.mode}, not 8-bit grey (L): save it as 8-bit grey PNG")
            codes: NDArray[np.uint8] = np.asarray(picture).copy()
            return codes
