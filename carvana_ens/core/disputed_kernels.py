"""The compiled kernels on disputed pixels. Private: ``disputed.py`` checks what comes in and says what the layout is.

The layout: images one after the other, each a member-major (M, n) part of one flat array of codes, n a multiple of 64
filled up with pixels that are 0 in every member and no object. Such a pixel reaches no cut of at least 1, so it counts
nowhere. ``starts`` (N + 1,) are the images' first blocks of 64 pixels, and one bit word of truth belongs to a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import (
    HALF,
    ONE,
    add_half,
    bounds,
    count_bits,
    half_at_least,
    levels_of,
    lowest_bit,
    reached,
)

MINUS_ONE = np.uint32(2**32 - 1)
"""A factor that takes away again: sums are uint32 and wrap."""


@kernel
def find_disputed(codes: Any, truth: Any, low: Any, high: Any, disputed: Any) -> Any:
    """Sets bit p where least code < high and greatest code >= low; (pixels set, sure and object, sure, object)."""
    pixels = codes.shape[1]
    blocks = pixels // 64
    kept = 0
    sure_object = 0
    sure = 0
    objects = 0
    for block in range(blocks):
        possible, certain = bounds(codes, block, low, high)
        disputed[block] = possible ^ certain
        kept += count_bits(possible ^ certain)
        sure_object += count_bits(certain & truth[block])
        sure += count_bits(certain)
        objects += count_bits(truth[block])
    if blocks < disputed.size:
        possible = np.uint64(0)
        certain = np.uint64(0)
        for pixel in range(blocks * 64, pixels):
            greatest = codes[0, pixel]
            least = codes[0, pixel]
            for member in range(1, codes.shape[0]):
                greatest = max(greatest, codes[member, pixel])
                least = min(least, codes[member, pixel])
            bit = ONE << np.uint64(pixel - blocks * 64)
            if greatest >= low:
                possible |= bit
            if least >= high:
                certain |= bit
        disputed[blocks] = possible ^ certain
        kept += count_bits(possible ^ certain)
        sure_object += count_bits(certain & truth[blocks])
        sure += count_bits(certain)
        objects += count_bits(truth[blocks])
    return kept, sure_object, sure, objects


@kernel
def take_disputed(codes: Any, truth: Any, disputed: Any, out: Any, labels: Any) -> None:
    """Copies the pixels whose bit is set into out (M, n), their truth into labels; both begin as zeros."""
    place = 0
    for block in range(disputed.size):
        left = disputed[block]
        while left != 0:
            bit = lowest_bit(left)
            left &= left - ONE
            for member in range(codes.shape[0]):
                out[member, place] = codes[member, block * 64 + bit]
            labels[place >> 6] |= ((truth[block] >> np.uint64(bit)) & ONE) << np.uint64(place & 63)
            place += 1


@helper
def _part(codes: Any, members: Any, begin: Any, end: Any) -> Any:
    return codes[begin * 64 * members : end * 64 * members].reshape(members, (end - begin) * 64)


@kernel
def count_reached(codes: Any, truth: Any, starts: Any, images: Any, weights: Any, cut_sum: Any, counts: Any) -> None:
    """counts[k] = (object pixels, all pixels) of images[k] whose weighted sum reaches cut_sum."""
    for at in range(images.size):
        image = images[at]
        begin = starts[image]
        part = _part(codes, weights.size, begin, starts[image + 1])
        both = 0
        found = 0
        for block in range(starts[image + 1] - begin):
            word = reached(part, block, weights, cut_sum)
            both += count_bits(word & truth[begin + block])
            found += count_bits(word)
        counts[at, 0] = both
        counts[at, 1] = found


@kernel
def count_each_added(codes: Any, truth: Any, starts: Any, images: Any, weights: Any, cut_sum: Any, counts: Any) -> None:
    """counts[member, k] as ``count_reached`` has it for these weights with one more for that member."""
    members = weights.size
    total = np.empty(HALF, np.uint32)
    for at in range(images.size):
        image = images[at]
        begin = starts[image]
        end = starts[image + 1]
        stride = (end - begin) * 64
        for member in range(members):
            counts[member, at, 0] = 0
            counts[member, at, 1] = 0
        for half in range(2 * (end - begin)):
            pixel = begin * 64 * members + half * HALF
            object_ = (truth[begin + (half >> 1)] >> np.uint64(HALF * (half & 1))) & np.uint64(2**32 - 1)
            total[:] = 0
            for member in range(members):
                if weights[member] != 0:
                    add_half(total, codes, pixel + member * stride, weights[member])
            for member in range(members):
                add_half(total, codes, pixel + member * stride, np.uint32(1))
                word = np.uint64(half_at_least(total, cut_sum))
                add_half(total, codes, pixel + member * stride, MINUS_ONE)
                counts[member, at, 0] += count_bits(word & object_)
                counts[member, at, 1] += count_bits(word)


@kernel
def count_levels(
    codes: Any, truth: Any, starts: Any, images: Any, weights: Any, low: Any, inverse: Any, counts: Any
) -> None:
    """Counts at [k, truth, place] with place = level - low + 1, cut off at both ends of that axis.

    level = floor(sum / (W step)) from ``inverse``, just above 1 / (W step), as ``kernels.histogram`` describes: all
    that is said there holds when everything is divided by a step.
    """
    top = counts.shape[2] - 1
    level = np.empty(64, np.uint32)
    for at in range(images.size):
        image = images[at]
        begin = starts[image]
        part = _part(codes, weights.size, begin, starts[image + 1])
        other = counts[at, 0]
        object_ = counts[at, 1]
        for block in range(starts[image + 1] - begin):
            levels_of(part, block, weights, inverse, np.uint64(0), 0, level)
            word = truth[begin + block]
            for lane in range(64):
                place = min(max(np.int64(level[lane]) - low + 1, 0), top)
                if (word >> np.uint64(lane)) & ONE:
                    object_[place] += 1
                else:
                    other[place] += 1


@kernel
def count_flips(
    codes: Any,
    truth: Any,
    starts: Any,
    images: Any,
    weights: Any,
    member: Any,
    least: Any,
    numerator: Any,
    denominator: Any,
    changes: Any,
) -> None:
    """Adds to changes [k, truth, v - least] how many pixels come on less those that go off at v.

    v is the weight of one member, from least on, and ``weights`` has 0 there. With n / d the threshold times S, A and
    R the sums of the other weights times codes and of these weights, and x the member's code, a pixel is on where
    A + v x >= n / d (R + v), which is v (d x - n) >= n R - d A, in whole numbers: it flips once at most along v.
    """
    members = weights.size
    steps = changes.shape[2]
    rest = np.int64(0)
    for other in range(members):
        rest += np.int64(weights[other])
    total = np.empty(64, np.int64)
    for at in range(images.size):
        image = images[at]
        begin = starts[image]
        part = _part(codes, members, begin, starts[image + 1])
        for block in range(starts[image + 1] - begin):
            total[:] = 0
            for other in range(members):
                weight = np.int64(weights[other])
                if weight != 0:
                    row = part[other, block * 64 : block * 64 + 64]
                    for lane in range(64):
                        total[lane] += np.int64(row[lane]) * weight
            row = part[member, block * 64 : block * 64 + 64]
            word = truth[begin + block]
            for lane in range(64):
                slope = denominator * np.int64(row[lane]) - numerator
                bound = numerator * rest - denominator * total[lane]
                on = 0
                off = steps
                if slope > 0:
                    on = min(max(-(-bound // slope) - least, 0), steps)
                elif slope < 0:
                    off = min(max(-bound // -slope + 1 - least, 0), steps)
                elif bound > 0:
                    on = steps
                kind = np.int64((word >> np.uint64(lane)) & ONE)
                if on < off:
                    changes[at, kind, on] += 1
                    if off < steps:
                        changes[at, kind, off] -= 1
