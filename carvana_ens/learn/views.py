"""Views of photos: what test-time augmentation makes of them, and the way back. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import UsageError
from carvana_ens.model import scale_of, tta_fault
from carvana_ens.types import Size

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class View:
    """scale: of the input grid. flips: names of flips, done one after the other on the scaled photo."""

    scale: float = 1.0
    flips: tuple[str, ...] = ()

    def grid(self, grid: Size) -> Size:
        """The scaled input grid, before flips."""
        return Size(*(max(1, round(side * self.scale)) for side in grid))


def views_of(tta: Sequence[str]) -> list[View]:
    """The views that augmentations ask for, the plain one first.

    Each flip doubles them, and each scale adds what there is at the plain one: hflip, vflip and x0.75 make 8.

    Raises:
        UsageError: an unknown or repeated name.
    """
    fault = tta_fault(tta)
    if fault is not None:
        raise UsageError(f"test-time augmentation {fault}")
    flips = [name for name in tta if scale_of(name) is None]
    scales = [1.0, *(scale for name in tta if (scale := scale_of(name)) is not None)]
    chosen = list(itertools.product((False, True), repeat=len(flips)))
    return [View(scale, tuple(itertools.compress(flips, choice))) for scale in scales for choice in chosen]


def flipped(array: NDArray[T], names: Iterable[str], first_axis: int) -> NDArray[T]:
    """The array with its height (axis ``first_axis``) and width (the next) turned: vflip and hflip reverse them,
    transpose swaps them. C-contiguous.
    """
    for name in names:
        if name == "transpose":
            array = array.swapaxes(first_axis, first_axis + 1)
        else:
            array = np.flip(array, first_axis + (name == "hflip"))
    return np.ascontiguousarray(array)


def unflipped(array: NDArray[T], names: Sequence[str], first_axis: int) -> NDArray[T]:
    """The way back from ``flipped``: each flip is its own inverse, so the last one is undone first."""
    return flipped(array, reversed(names), first_axis)
