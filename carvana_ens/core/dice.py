"""Dice, 2 TP / (2 TP + FP + FN) (Dice 1945, doi:10.2307/1932409), with two empty masks agreeing: 1."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carvana_ens.core import kernels
from carvana_ens.core.jit import run
from carvana_ens.core.rle import check_bits, check_mask, mask_bits
from carvana_ens.errors import DataError
from carvana_ens.types import Bits, Mask, Size


def dice(a: Mask, b: Mask) -> float:
    """Dice of two bool (H, W) masks, in [0, 1].

    Raises:
        UsageError: not bool arrays of two axes.
        DataError: masks of different sizes.
    """
    check_mask(a)
    check_mask(b)
    if a.shape != b.shape:
        raise DataError(f"masks of {Size(*a.shape)} and {Size(*b.shape)} cannot be compared: they must be of one size")
    return dice_from_counts(*counts(mask_bits(a), mask_bits(b)))


def counts(a_bits: Bits, b_bits: Bits) -> tuple[int, int, int]:
    """(true positives, area of a, area of b) in pixels, of two masks as bit words.

    Raises:
        UsageError: not contiguous uint64 words.
        DataError: different numbers of words.
    """
    check_bits(a_bits, a_bits.size * 64)
    check_bits(b_bits, b_bits.size * 64)
    if a_bits.size != b_bits.size:
        raise DataError(f"{a_bits.size} and {b_bits.size} bit words cannot be compared: masks must be of one size")
    both, in_a, in_b = run(kernels.count_common, a_bits, b_bits)
    return int(both), int(in_a), int(in_b)


@overload
def dice_from_counts(tp: int, a: int, b: int) -> float: ...
@overload
def dice_from_counts(tp: ArrayLike, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]: ...
def dice_from_counts(tp: ArrayLike, a: ArrayLike, b: ArrayLike) -> float | NDArray[np.float64]:
    """2 tp / (a + b) with a, b the areas of the two masks; 1 where both are 0. Arrays broadcast."""
    both, areas = 2 * np.asarray(tp), np.asarray(a) + np.asarray(b)
    both, areas = np.broadcast_arrays(both, areas)
    result = np.divide(both, areas, out=np.ones(areas.shape), where=areas != 0)
    return float(result) if result.ndim == 0 else result
