"""The same work in numpy, in full: the slow twins that results are compared with, and the leanest forms that we know.

Codes are (M, P) uint8, M <= 256 members of equal weight, P pixels in row-major order; truth is (P,) bool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.types import Mask, Size

CodesOf = NDArray[np.uint8]
Flat = NDArray[np.bool_]
Curve = NDArray[np.float64]


def usual_text(mask: Mask) -> str:
    """Run lengths as they are usually written: differences of the padded mask, joined."""
    padded = np.zeros(mask.size + 2, np.int8)
    padded[1:-1] = mask.reshape(-1)
    ends = np.flatnonzero(np.diff(padded)) + 1
    ends[1::2] -= ends[::2]
    return " ".join(map(str, ends))


def lean_text(mask: Mask) -> str:
    """The leanest form in numpy: neighbours compared as bool, numbers written by the list's own repr."""
    flat = mask.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 2
    if flat[0]:
        ends = np.concatenate([[1], ends])
    if flat[-1]:
        ends = np.concatenate([ends, [flat.size + 1]])
    ends[1::2] -= ends[::2]
    return str(ends.tolist())[1:-1].replace(",", "")


def decoded(text: str, size: Size) -> Mask:
    """The mask of a run-length text: a loop over the runs, as it is usually written."""
    flat = np.zeros(size.height * size.width, np.bool_)
    numbers = np.array(text.split(), np.int64)
    for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
        flat[start : start + length] = True
    return flat.reshape(size)


def float_mask(codes: CodesOf) -> Flat:
    """The blend at 0.5 as a mean in float32; exact, since whole sums of uint8 are (2**24 / 255 members)."""
    flat: Flat = codes.mean(0, dtype=np.float32) >= np.float32(127.5)
    return flat


def lean_mask(codes: CodesOf) -> Flat:
    """The blend at 0.5 with the least traffic: one uint16 sum, compared with its cut."""
    total = codes[0].astype(np.uint16)
    for member in codes[1:]:
        total += member
    flat: Flat = total >= np.uint16(-(-255 * len(codes) // 2))
    return flat


def exact_mask(codes: CodesOf) -> Flat:
    """The blend at 0.5 in int64: 2 sum(codes) >= 255 M. The twin."""
    flat: Flat = 2 * codes.sum(0, dtype=np.int64) >= 255 * len(codes)
    return flat


def curve(codes: CodesOf, truth: Flat, low: int = 1, high: int = 255) -> Curve:
    """Dice at the thresholds k / 255, k = low..high, one after the other on floor(sum / M) in int64. The twin."""
    level = codes.sum(0, dtype=np.int64) // len(codes)
    area, found = np.count_nonzero(truth), []
    for k in range(low, high + 1):
        on = level >= k
        found.append(dice(np.count_nonzero(on & truth), np.count_nonzero(on), area))
    return np.array(found)


def lean_curve(codes: CodesOf, truth: Flat, low: int = 1, high: int = 255) -> Curve:
    """The same loop made lean: levels as uint8, and the object's pixels picked out once."""
    level = levels(codes)
    inside = level[truth]
    cuts = range(low, high + 1)
    return np.array([dice(np.count_nonzero(inside >= k), np.count_nonzero(level >= k), inside.size) for k in cuts])


def counted_curve(codes: CodesOf, truth: Flat) -> Curve:
    """No loop at all: two histograms, summed from the top."""
    level = levels(codes)
    in_all = np.bincount(level, minlength=256)[:0:-1].cumsum()[::-1]
    in_object = np.bincount(level[truth], minlength=256)
    hits, areas = in_object[:0:-1].cumsum()[::-1], in_all + in_object.sum()
    found: Curve = np.divide(2 * hits, areas, out=np.ones(255), where=areas != 0)
    return found


def levels(codes: CodesOf) -> CodesOf:
    """floor(sum / M), (P,), 0..255."""
    total: Any = codes[0].astype(np.uint16)
    for member in codes[1:]:
        total += member
    total //= np.uint16(len(codes))
    level: CodesOf = total.astype(np.uint8)
    return level


def dice(hits: Any, predicted: Any, area: Any) -> float:
    """2 TP / (areas), 1 where both are empty."""
    return 2 * hits / (predicted + area) if predicted + area else 1.0
