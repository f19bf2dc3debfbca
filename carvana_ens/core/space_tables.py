"""How the table of each blending space is made: from nothing, or from counts of one member's out-of-fold codes.

A histogram is (S + 1,) int64, the number of pixels at each code; see ``curve.histograms``, which gives one of object
pixels and one of all others for the codes of one member.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.curve import Histogram
from carvana_ens.core.spaces import SCALE, MemberTable
from carvana_ens.errors import DataError

CLIP = 1 / 510
"""Logits are taken of probabilities within CLIP..1 - CLIP, half a uint8 code from the ends, whatever the dtype, so that
members of both count alike."""

COLDEST, HOTTEST = 1 / 16, 16.0
"""Bounds of a temperature: a member that is right everywhere would have it at 0."""

_HALVINGS = 60
_DIGITS = 6


def logit_table(full_scale: int) -> MemberTable:
    """rint(65535 (logit(p) + L) / 2 L) with p clipped, L = logit(1 - CLIP): a mean of values is a mean of logits."""
    p = np.arange(full_scale + 1) / full_scale
    scaled = _logit(p, CLIP) / math.log(1 / CLIP - 1)
    return MemberTable(np.rint(SCALE * (1 + scaled) / 2).astype(np.uint16), {"clip": "1/510"})


def rank_table(hist: Histogram) -> MemberTable:
    """The share of pixels with a smaller code plus half of those with the same one (mid-rank), in whole numbers.

    hist: of all pixels.

    Raises:
        DataError: no pixels.
    """
    total = _counted(hist)
    doubled = 2 * hist.cumsum() - hist
    return MemberTable(((SCALE * doubled + total) // (2 * total)).astype(np.uint16), {"pixels": total})


def temperature_table(object_hist: Histogram, other_hist: Histogram) -> MemberTable:
    """rint(65535 sigmoid(logit(p) / T)) with T as ``fitted_temperature``; 0 stays 0 and 1 stays 1.

    Raises:
        DataError: no pixels.
    """
    temperature = fitted_temperature(object_hist, other_hist)
    full_scale = object_hist.size - 1
    p = np.arange(1, full_scale) / full_scale
    values = np.zeros(full_scale + 1, np.uint16)
    values[1:-1] = np.rint(SCALE * _sigmoid(_logit(p, 0) / temperature))
    values[-1] = SCALE
    return MemberTable(values, {"temperature": temperature})


def vote_table(code: int, full_scale: int) -> MemberTable:
    """0 under a code, 65535 from it on. code: 1..S."""
    values = np.where(np.arange(full_scale + 1) >= code, SCALE, 0).astype(np.uint16)
    return MemberTable(values, {"threshold": f"{code}/{full_scale}"})


def fitted_temperature(object_hist: Histogram, other_hist: Histogram) -> float:
    """The T within COLDEST..HOTTEST that makes the log loss of sigmoid(logit(p) / T) least, to six digits.

    One parameter fitted after training, on images that the model has not seen (Guo et al., On Calibration of Modern
    Neural Networks, ICML 2017, arXiv 1706.04599). The loss is convex in 1 / T; where its slope changes sign is found by
    halving. Codes 0 and S stand for probabilities half a code from the ends: else one pixel that is surely wrong would
    cost an infinite loss.

    Raises:
        DataError: no pixels.
    """
    _counted(object_hist + other_hist)
    full_scale = object_hist.size - 1
    logits = _logit(np.arange(full_scale + 1) / full_scale, 1 / (2 * full_scale))
    every = object_hist + other_hist

    def too_cold(temperature: float) -> bool:
        """Whether the loss falls as T rises: its slope along 1 / T is above 0."""
        return float((logits * (every * _sigmoid(logits / temperature) - object_hist)).sum()) > 0

    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_cold(math.exp(middle)) else (low, middle)
    return float(f"{math.exp((low + high) / 2):.{_DIGITS}g}")


def _counted(hist: Histogram) -> int:
    total = int(hist.sum())
    if not total:
        raise DataError("there is no pixel to fit a blending space on: give out-of-fold maps of some images")
    return total


def _logit(p: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    clipped = p.clip(clip, 1 - clip)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow."""
    sigmoid: NDArray[np.float64] = (1 + np.tanh(x / 2)) / 2
    return sigmoid
