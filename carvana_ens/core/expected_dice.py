"""The cut of one picture that maximises Dice in expectation under its own probabilities.

With pixels that are objects with probability p, the mask of all pixels with p >= t has the expected Dice, as a ratio of
expectations, 2 sum(p over p >= t) / (number with p >= t + sum(p over all)). It is greatest where t is half of that
greatest value: a pixel is worth having on as long as 2 p is above it (Lipton, Elkan and Naryanaswamy, Optimal
Thresholding of Classifiers to Maximize F1 Measure, ECML PKDD 2014, doi:10.1007/978-3-662-44851-9_15; for masks:
Nordström et al., On Image Segmentation With Noisy Labels, NeurIPS 2022, arXiv 2206.06484). So the cut lies at one half
or under it, and the less sure a picture is, the lower.

Probabilities are the blend's levels, floor(sum(w code) / W) / S, and everything is computed in whole numbers.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.blend import StackedCodes, blend_bits
from carvana_ens.core.curve import Histogram, histograms
from carvana_ens.errors import UsageError
from carvana_ens.types import Bits


def expected_dice_cut(hist: Histogram) -> tuple[int, Fraction]:
    """(level k, expected Dice of the mask of pixels at level k or above), the latter as great as can be.

    hist: (S + 1,) int64 pixels at each level 0..S. Of equals the smallest mask: pixels at exactly half of the best
    value change nothing in expectation and stay off. Where every pixel is at level 0 the mask is empty, k = S, and so
    is the truth, surely: 1.

    Raises:
        UsageError: no histogram, of S 1..65535.
    """
    full_scale = hist.size - 1
    if hist.ndim != 1 or hist.dtype != np.int64 or not 1 <= full_scale <= 65535 or hist.min() < 0:
        raise UsageError(f"the histogram is {hist.dtype} {hist.shape}: give int64 (S + 1,), S at most 65535")
    levels = np.arange(full_scale + 1)
    mass = int((hist * levels).sum())
    if not mass:
        return full_scale, Fraction(1)
    above = hist.sum() - hist.cumsum()
    mass_above = mass - (hist * levels).cumsum()
    # Level l gains where 2 l / S is above the value without it; that falls with l, so the least such level is the cut.
    # Below 2**30 pixels no product passes 2**63.
    gains = levels * (full_scale * above + mass) > full_scale * mass_above
    level = int(np.argmax(gains))
    on, mass_on = int(above[level] + hist[level]), int(mass_above[level] + level * hist[level])
    return level, Fraction(2 * mass_on, full_scale * on + mass)


def expected_dice_bits(codes: StackedCodes, weights: NDArray[np.uint32]) -> Bits:
    """The blend of (M, P) codes cut at its own ``expected_dice_cut``, as bit words; codes, weights: see ``blend_bits``.

    Raises:
        UsageError: as ``blend_bits`` says.
    """
    return blend_bits(codes, weights, blend_cut(codes, weights)[0] * int(weights.sum(dtype=np.uint64)))


def blend_cut(codes: StackedCodes, weights: NDArray[np.uint32]) -> tuple[int, Fraction]:
    """``expected_dice_cut`` of a blend.

    Raises:
        UsageError: as ``blend_bits`` says.
    """
    no_truth = np.zeros(-(-codes.shape[-1] // 64), np.uint64)
    return expected_dice_cut(histograms(codes, weights, no_truth)[1])
