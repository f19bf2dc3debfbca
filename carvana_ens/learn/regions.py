"""Crops to a region of interest: where a first pass has found the object, and a margin around it. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.learn.inference import ImageReader
from carvana_ens.model import Samples
from carvana_ens.types import Codes, Image, Mask, Size

T = TypeVar("T", bound=np.generic)


class Box(NamedTuple):
    """Rows top to bottom and columns left to right of a photo, the last ones not in it."""

    top: int
    left: int
    bottom: int
    right: int

    def cut(self, array: NDArray[T]) -> NDArray[T]:
        """What of an (H, W, ...) array lies in the box, C-contiguous."""
        return np.ascontiguousarray(array[self.top : self.bottom, self.left : self.right])

    def pasted(self, codes: Codes, size: Size) -> Codes:
        """The codes of a whole photo of this size from those of the box: 0 everywhere else."""
        whole: Codes = np.zeros(size, codes.dtype)
        whole[self.top : self.bottom, self.left : self.right] = codes
        return whole


BoxOf: TypeAlias = Callable[[str], Box]
"""The box of a photo by its id."""


def box_around(found: NDArray[np.bool_], margin: int) -> Box:
    """The least box that holds all of ``found``, (H, W), grown by ``margin`` pixels as far as the photo goes.

    The whole photo where nothing was found.
    """
    (height, width), rows, columns = found.shape, np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    if not len(rows):
        return Box(0, 0, height, width)
    return Box(
        max(int(rows[0]) - margin, 0),
        max(int(columns[0]) - margin, 0),
        min(int(rows[-1]) + 1 + margin, height),
        min(int(columns[-1]) + 1 + margin, width),
    )


@dataclass(frozen=True)
class CroppedSamples:
    """Photos and masks (:class:`carvana_ens.model.Samples`), each cut to its box."""

    samples: Samples
    box: BoxOf

    @property
    def ids(self) -> Sequence[str]:
        """Those of ``samples``."""
        return self.samples.ids

    def image(self, image_id: str) -> Image:
        """What of the photo lies in its box."""
        return self.box(image_id).cut(self.samples.image(image_id))

    def mask(self, image_id: str) -> Mask:
        """What of the mask lies in the photo's box."""
        return self.box(image_id).cut(self.samples.mask(image_id))


@dataclass(frozen=True)
class CroppedImages:
    """Photos as ``inference.predict_maps`` reads them, each cut to its box."""

    images: ImageReader
    box: BoxOf

    def read(self, image_id: str) -> Image:
        """What of the photo lies in its box."""
        return self.box(image_id).cut(self.images.read(image_id))
