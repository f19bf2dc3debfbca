"""The compiled kernels on codes. Private: the modules beside this one check what comes in and explain what is wrong.

None of them reads a global that could be tuned, takes a function, or raises. Codes, weights and the room that their
sums need are described in ``vectors.py``.

A weighted mean lies between the members' least and greatest code. With cut = ceil(cut_sum / W): where the greatest
code is below cut, sum <= (cut - 1) W < cut_sum; where the least code is at least cut, sum >= cut W >= cut_sum. Such a
pixel is decided without its sum, for every weight vector, and only the others are summed. Whole blocks of 64 pixels
are read as vectors, one bit word out; the pixels after the last whole block are summed one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import ONE, bounds, count_bits, levels_of, lowest_bit, reached

DENSE = 4
"""With more undecided pixels than this in a block, handling all 64 as vectors is faster than one by one."""


@helper
def _sum_at(codes: Any, pixel: Any, weights: Any) -> Any:
    total = np.uint64(0)
    for member in range(codes.shape[0]):
        total += np.uint64(codes[member, pixel]) * np.uint64(weights[member])
    return total


@helper
def _place(codes: Any, pixel: Any, weights: Any, inverse: Any, truth: Any, width: Any) -> Any:
    """Where a pixel is counted; truth is the bit word that holds its bit."""
    row = (truth >> np.uint64(pixel & 63)) & ONE
    return row * np.uint64(width) + np.uint64(np.float64(_sum_at(codes, pixel, weights)) * inverse)


@kernel
def blend(codes: Any, weights: Any, cut_sum: Any, cut: Any, bits: Any) -> None:
    """Sets bit p where the weighted sum of pixel p's codes reaches cut_sum; cut = ceil(cut_sum / W)."""
    pixels = codes.shape[1]
    blocks = pixels // 64
    for block in range(blocks):
        possible, certain = bounds(codes, block, cut, cut)
        undecided = possible ^ certain
        if undecided != 0:
            if count_bits(undecided) > DENSE:
                certain = reached(codes, block, weights, cut_sum)
            else:
                while undecided != 0:
                    bit = lowest_bit(undecided)
                    undecided &= undecided - ONE
                    if _sum_at(codes, block * 64 + bit, weights) >= cut_sum:
                        certain |= ONE << np.uint64(bit)
        bits[block] = certain
    if blocks < bits.size:
        word = np.uint64(0)
        for pixel in range(blocks * 64, pixels):
            if _sum_at(codes, pixel, weights) >= cut_sum:
                word |= ONE << np.uint64(pixel - blocks * 64)
        bits[blocks] = word


@kernel
def histogram(codes: Any, weights: Any, truth: Any, low: Any, high: Any, inverse: Any, counts: Any) -> None:
    """Counts each pixel at [copy, truth, level] with level = floor(sum / W); counts is flat, 4 copies of 2 (S + 1).

    Levels below low may be counted as 0, levels of at least high as S. Neighbours go to different copies, since they
    often have the same level and the next addition would wait for the last one.

    inverse is a float64 with 1 / W < inverse <= (1 + 2**-45) / W, and the level is sum * inverse, truncated. The exact
    product is at least sum / W, so where that is a whole number rounding cannot lead below it. It exceeds sum / W by
    at most 2**16 * 2**-45 = 2**-29, and sum / W is at least 1 / W >= 2**-16 below the next whole number: too little to
    reach it, and float64 has room between.
    """
    pixels = codes.shape[1]
    blocks = pixels // 64
    size = counts.size // 4
    width = size // 2
    level = np.empty(64, np.uint32)
    copy1 = np.uint64(size)
    copy2 = np.uint64(2 * size)
    copy3 = np.uint64(3 * size)
    below = 0
    below_object = 0
    above = 0
    above_object = 0
    for block in range(blocks):
        possible, certain = bounds(codes, block, low, high)
        object_ = truth[block]
        undecided = possible ^ certain
        if count_bits(undecided) > DENSE:
            levels_of(codes, block, weights, inverse, object_, width, level)
            for at in range(0, 64, 4):
                counts[np.uint64(level[at])] += 1
                counts[copy1 + np.uint64(level[at + 1])] += 1
                counts[copy2 + np.uint64(level[at + 2])] += 1
                counts[copy3 + np.uint64(level[at + 3])] += 1
            continue
        below += 64 - count_bits(possible)
        below_object += count_bits(object_ & ~possible)
        above += count_bits(certain)
        above_object += count_bits(object_ & certain)
        while undecided != 0:
            bit = lowest_bit(undecided)
            undecided &= undecided - ONE
            counts[_place(codes, block * 64 + bit, weights, inverse, object_, width)] += 1
    for pixel in range(blocks * 64, pixels):
        counts[_place(codes, pixel, weights, inverse, truth[blocks], width)] += 1
    counts[0] += below - below_object
    counts[width] += below_object
    counts[width - 1] += above - above_object
    counts[2 * width - 1] += above_object


@kernel
def count_common(a: Any, b: Any) -> Any:
    """(bits set in both, in a, in b)."""
    both = 0
    in_a = 0
    in_b = 0
    for word in range(a.size):
        both += count_bits(a[word] & b[word])
        in_a += count_bits(a[word])
        in_b += count_bits(b[word])
    return both, in_a, in_b
