"""Photos that the checks show to a model: a disc on a shaded ground, in other colours and places in each of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carvana_ens.model import Batch
from carvana_ens.types import Image, Images, Mask, Size

SIZE = Size(64, 96)
"""The grid that a model is checked on."""
ODD_SIZE = Size(37, 53)
"""A second grid, with sides that no network halves."""


def draw_mask(number: int, size: Size) -> Mask:
    """The mask of photo ``number``: a disc, (H, W) bool."""
    random = np.random.default_rng((number, 1))
    y, x = np.indices(size)
    middle_y, middle_x = random.uniform(0.4, 0.6, 2) * size
    radius = random.uniform(0.2, 0.35) * min(size)
    disc: Mask = (y - middle_y) ** 2 + (x - middle_x) ** 2 < radius**2
    return disc


def draw_image(number: int, size: Size) -> Image:
    """Photo ``number``: (H, W, 3) uint8. Neighbouring numbers differ in brightness, so that a mean over both shows."""
    random = np.random.default_rng((number, 2))
    ground = 30 + 60 * (number % 3) + np.linspace(0, 40, size.width)[:, None] + random.integers(0, 20, (*size, 3))
    object_ = random.integers(0, 256, 3) + random.integers(-10, 11, (*size, 3))
    photo: Image = np.where(draw_mask(number, size)[..., None], object_, ground).clip(0, 255).astype(np.uint8)
    return photo


def draw_photos(count: int, size: Size) -> tuple[Images, NDArray[np.bool_]]:
    """Photos 0 .. count - 1, (N, H, W, 3) uint8, and their masks, (N, H, W) bool."""
    numbers = range(count)
    return np.stack([draw_image(n, size) for n in numbers]), np.stack([draw_mask(n, size) for n in numbers])


def drawn_batch(numbers: Sequence[int], size: Size, *, car: str | None = None) -> Batch:
    """Photos by their numbers, as a model of context "image" gets them: each of another car.

    car: the one car that all of them show, as a model of context "group" gets them.
    """
    groups = tuple(car or f"c{number:02d}" for number in numbers)
    ids = tuple(f"{group}_{number:02d}" for group, number in zip(groups, numbers, strict=True))
    return Batch(np.stack([draw_image(number, size) for number in numbers]), ids, groups)


def blank_batch(size: Size) -> Batch:
    """A black and a white photo of one car."""
    images = np.zeros((2, *size, 3), np.uint8)
    images[1] = 255
    return Batch(images, ("blank_01", "blank_02"), ("blank", "blank"))


class DrawnSamples:
    """Drawn photos with their masks, to fit a model on: the Samples of a FitTask.

    size: the photos' own grid, which need not be the model's. unreadable: reading any of them raises Unreadable.
    """

    def __init__(self, numbers: Sequence[int], size: Size, *, unreadable: bool = False) -> None:
        self._numbers = {f"c{number // 2:02d}_{number % 2 + 1:02d}": number for number in numbers}  # two views a car
        self._size, self._unreadable = size, unreadable
        self._read = threading.Event()

    @property
    def ids(self) -> Sequence[str]:
        """Their ids."""
        return tuple(self._numbers)

    @property
    def touched(self) -> bool:
        """Whether any photo or mask has been asked for."""
        return self._read.is_set()

    def image(self, image_id: str) -> Image:
        """(H, W, 3) uint8 RGB."""
        return draw_image(self._found(image_id), self._size)

    def mask(self, image_id: str) -> Mask:
        """(H, W) bool, True = object."""
        return draw_mask(self._found(image_id), self._size)

    def _found(self, image_id: str) -> int:
        self._read.set()
        if self._unreadable:
            raise Unreadable(image_id)
        return self._numbers[image_id]


class Unreadable(Exception):  # noqa: N818 (no error: a check waits for it)
    """A photo was asked for that is not meant to be read."""
