"""Pseudo-labels on disk: soft masks of photos that nobody has drawn masks for, made from an ensemble's blend.

A folder with ``maps/<id>.png``, 8-bit grey, and ``listing.json``, which is written last: where the labels come from,
and of each image its photo (a path relative to the project, nothing is copied), its doubt and its map's checksum.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from carvana_ens.data.images import image_size, read_image
from carvana_ens.data.maps import MapFolder
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.errors import DataError, ProjectError
from carvana_ens.files import digest, replacing, write_json
from carvana_ens.types import Image, Json, Mask, ProbabilityMap, Size

SCHEMA = 1
LISTING = "listing.json"
MAPS = "maps"


@dataclass(frozen=True)
class PseudoImage:
    """One image. photo: path from the project's folder, with ``/``. doubt: pixels, what it was chosen by. crc32: of
    its map's codes, row-major.
    """

    id: str
    photo: str
    doubt: float
    crc32: int


def write_map(folder: Path, image_id: str, codes: NDArray[np.uint8]) -> int:
    """Writes the map of an image, (H, W) codes with 255 = certainly the object, and returns its crc32."""
    with replacing(folder / MAPS / f"{image_id}.png") as temporary:
        Pictures.fromarray(codes).save(temporary, format="PNG", compress_level=1)
    return zlib.crc32(np.ascontiguousarray(codes).data)


def write_listing(folder: Path, source: Mapping[str, Json], images: Sequence[PseudoImage]) -> None:
    """Writes ``listing.json``. source: where the labels come from, as plain JSON values."""
    write_json(
        folder / LISTING, {"schema": SCHEMA, "source": dict(source), "images": [vars(image) for image in images]}
    )


class PseudoLabels:
    """The images of a listing with their soft masks, read one at a time (:class:`carvana_ens.model.SoftSamples`).

    ids: in the order of the listing. source: where the labels come from, see ``write_listing``.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        """Reads the listing and finds the maps.

        Args:
            folder: of the pseudo-labels.
            root: of the project, from which photos are looked up.

        Raises:
            ProjectError: no listing, or one that cannot be used.
            DataError: a map or a photo is not there.
        """
        self.folder, self._root = folder, root
        self.source, images = _read_listing(folder / LISTING)
        self._images = {image.id: image for image in images}
        self.ids = tuple(self._images)
        self._maps = MapFolder(folder / MAPS)
        for image in images:
            self._maps.path(image.id)
            if not self.photo(image.id).is_file():
                raise DataError(
                    f"photo {self.photo(image.id)} of the pseudo-labels {folder} is gone: put it back, or make them "
                    f"again with carvana-ens pseudo-label --fresh"
                )

    @cached_property
    def digest(self) -> str:
        """sha256 over ids and maps."""
        return digest([[image.id, image.crc32] for image in self._images.values()])

    def photo(self, image_id: str) -> Path:
        """The photo's file.

        Raises:
            DataError: the listing has no such image.
        """
        if image_id not in self._images:
            raise unknown_id(image_id, f"the pseudo-labels {self.folder}", self._images)
        return Path(os.path.normpath(self._root / self._images[image_id].photo))

    def image(self, image_id: str) -> Image:
        """The photo, (H, W, 3) uint8 RGB."""
        return read_image(self.photo(image_id))

    def mask(self, image_id: str) -> Mask:
        """(H, W) bool, where the object is more likely than not; errors as for ``target``."""
        return self._codes(image_id) >= np.uint8(128)

    def target(self, image_id: str) -> ProbabilityMap:
        """(H, W) float32 in [0, 1], the probability of the object.

        Raises:
            DataError: a map that is damaged, was changed, or is not of the photo's size.
        """
        target: ProbabilityMap = np.divide(self._codes(image_id), 255, dtype=np.float32)
        return target

    def _codes(self, image_id: str) -> NDArray[np.uint8]:
        photo, codes = self.photo(image_id), self._maps.read(image_id)
        if zlib.crc32(codes.data) != self._images[image_id].crc32:
            raise DataError(f"{self._maps.path(image_id)} is not the map that {LISTING} knows: {_AGAIN}")
        if Size(*codes.shape) != image_size(photo):
            raise DataError(
                f"{photo} is {image_size(photo)}, its pseudo-label {Size(*codes.shape)}: was it replaced? {_AGAIN}"
            )
        return codes


_AGAIN = "make the labels again with carvana-ens pseudo-label --fresh"


def _read_listing(path: Path) -> tuple[dict[str, Json], list[PseudoImage]]:
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise ProjectError(f"{path} has schema {document['schema']!r}, this version reads {SCHEMA}: {_AGAIN}")
        source, images = dict(document["source"]), [PseudoImage(**image) for image in document["images"]]
    except FileNotFoundError:
        raise ProjectError(
            f"{path} is not there: make pseudo-labels of that name with carvana-ens pseudo-label"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{path} cannot be read ({type(error).__name__}: {error}): {_AGAIN}") from error
    if not images or len({image.id for image in images}) != len(images):
        raise ProjectError(f"{path} lists no images, or one twice: {_AGAIN}")
    return source, images
