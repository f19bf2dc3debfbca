"""Dice at every threshold from one pass over the maps.

With t = k / S a pixel is foreground when sum(w code) >= k W, which is when floor(sum(w code) / W) >= k. So the counts
of these levels, kept apart for object and other pixels, hold the exact Dice at each of the S thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import kernels
from carvana_ens.core.blend import FULL_SCALE, StackedCodes, check_stack
from carvana_ens.core.dice import dice_from_counts
from carvana_ens.core.jit import run
from carvana_ens.core.rle import check_bits
from carvana_ens.errors import UsageError
from carvana_ens.types import Bits

Histogram = NDArray[np.int64]
"""(S + 1,) number of pixels at each level floor(sum(w code) / W), 0..S."""


def histograms(
    codes: StackedCodes, weights: NDArray[np.uint32], truth_bits: Bits, low: int = 1, high: int | None = None
) -> tuple[Histogram, Histogram]:
    """(levels of object pixels, levels of other pixels) of the blend, each (S + 1,) int64.

    codes: (M, P) uint8 or uint16, C-contiguous. weights: (M,) uint32, sum in 1..2**16. truth_bits: the true mask as
    ``mask_bits`` gives it. low, high: the levels that matter (default 1..S: all); lower ones count as 0 and those from
    high on as S, so that thresholds k / S with low <= k <= high stay exact. A narrow range is faster on noisy maps.

    Raises:
        UsageError: a shape, dtype or range that is not as above.
        DataError: truth_bits of another number of pixels.
    """
    codes, weights, total = check_stack(codes, weights)
    check_bits(truth_bits, codes.shape[1])
    full_scale = FULL_SCALE[codes.dtype]
    high = full_scale if high is None else high
    if not 1 <= low <= high <= full_scale:
        raise UsageError(f"levels {low}..{high} are not within 1..{full_scale}: give low <= high")
    copies = np.zeros((4, 2, full_scale + 1), np.int64)
    inverse = (1 + 2.0**-48) / total  # just above 1 / W: see the kernel
    run(kernels.histogram, codes, weights, truth_bits, low, high, inverse, copies.reshape(-1))
    levels = copies.sum(0)
    levels[:, 0] = levels[:, :low].sum(1)
    levels[:, 1:low] = 0
    levels[:, full_scale] = levels[:, high:].sum(1)
    levels[:, high:full_scale] = 0
    return levels[1], levels[0]


def dice_curve(object_hist: Histogram, other_hist: Histogram) -> NDArray[np.float64]:
    """(S,) Dice of one picture by threshold: entry k - 1 is the Dice at k / S, k = 1..S; both empty = 1.

    Raises:
        UsageError: not two histograms of one length, at least 2.
    """
    if object_hist.ndim != 1 or object_hist.shape != other_hist.shape or object_hist.size < 2:
        raise UsageError(
            f"histograms of shapes {object_hist.shape} and {other_hist.shape}: give two of one length, see histograms"
        )
    true_positives = _at_least(object_hist)
    return dice_from_counts(true_positives, true_positives + _at_least(other_hist), object_hist.sum())


def _at_least(hist: Histogram) -> Histogram:
    """Number of pixels at level k or above, k = 1..S."""
    return hist[:0:-1].cumsum()[::-1]
