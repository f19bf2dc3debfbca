"""The compiled kernels on packed maps, whose form ``packed.py`` describes. Private: that module checks and explains.

Halves are 32 pixels, numbered in row-major order; the last ones of a picture may reach past its end. Planes are (3,
ceil(halves / 64)) bit words, half k in bit k % 64 of word k // 64: LOW, HIGH and EXACT as in ``packed.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import ONE, at_least, copy_half, count_bits

LOW, HIGH, EXACT = range(3)
"""The planes."""
ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
LEFT = np.uint64(0xFFFF_FFFF)
HALF_BITS = np.uint64(32)
PAIRS = 16
"""Pairs of neighbours in a half, and octets that one digit of each takes."""
WIDE_DIGITS = 3
"""Digits of 4 bits that a cold code of uint16 takes; one of uint8 takes one."""


@helper
def fold_half(flat: Any, at: Any, end: Any, digits: Any, octets: Any, to: Any) -> None:
    """Writes the 32 codes from index at as their distances from that end of the scale, 0 or full; ``packed.py``."""
    half = flat[at : at + 2 * PAIRS]
    for digit in range(digits):
        folded = octets[to + PAIRS * digit : to + PAIRS * (digit + 1)]
        for pair in range(PAIRS):
            first = (np.int64(half[2 * pair]) ^ end) >> 4 * digit & 15
            second = (np.int64(half[2 * pair + 1]) ^ end) >> 4 * digit & 15
            folded[pair] = first | second << 4


@helper
def unfold_half(octets: Any, at: Any, end: Any, digits: Any, flat: Any, to: Any) -> None:
    """Undoes ``fold_half``."""
    folded = octets[at : at + PAIRS * digits]
    half = flat[to : to + 2 * PAIRS]
    for pair in range(PAIRS):
        first = np.int64(0)
        second = np.int64(0)
        for digit in range(digits):
            octet = np.int64(folded[PAIRS * digit + pair])
            first |= (octet & 15) << 4 * digit
            second |= (octet >> 4) << 4 * digit
        half[2 * pair] = first ^ end
        half[2 * pair + 1] = second ^ end


@kernel
def split(flat: Any, low: Any, high: Any, full: Any, planes: Any, hot: Any, cold: Any) -> Any:
    """Classifies every half of whole blocks of 64 codes, and gathers the codes of hot ones, and of cold ones in short.

    Returns the numbers of hot and of cold halves. hot, like flat, and cold, uint8, have room for every half.
    """
    digits = 1 if flat.itemsize == 1 else WIDE_DIGITS
    planes[:] = 0
    hots = 0
    colds = 0
    for block in range(flat.size // 64):
        some = at_least(flat, block, 1)
        above = at_least(flat, block, low + 1)
        upper = at_least(flat, block, high)
        whole = at_least(flat, block, full)
        for side in range(2):
            half = 2 * block + side
            word = half // 64
            bit = ONE << np.uint64(half & 63)
            exact = False
            if above & LEFT == 0:
                planes[LOW, word] |= bit
                exact = some & LEFT == 0
            elif upper & LEFT == LEFT:
                planes[HIGH, word] |= bit
                exact = whole & LEFT == LEFT
            else:
                copy_half(flat, 32 * half, hot, 32 * hots)
                hots += 1
                exact = True
            if not exact:
                end = 0 if above & LEFT == 0 else full
                fold_half(flat, 32 * half, end, digits, cold, PAIRS * digits * colds)
                colds += 1
            elif (planes[LOW, word] | planes[HIGH, word]) & bit != 0:
                planes[EXACT, word] |= bit
            some >>= HALF_BITS
            above >>= HALF_BITS
            upper >>= HALF_BITS
            whole >>= HALF_BITS
    return hots, colds


@kernel
def write_planes(planes: Any, words: Any) -> Any:
    """Writes the planes in short: of each, a bit for every word that differs from the one before it (the first: from
    0), and after these the differing words. Returns the number of words written.
    """
    count = planes.shape[1]
    marks = (count + 63) // 64
    words[: 3 * marks] = 0
    length = 3 * marks
    for plane in range(3):
        before = np.uint64(0)
        for at in range(count):
            word = planes[plane, at]
            if word != before:
                words[plane * marks + at // 64] |= ONE << np.uint64(at & 63)
                words[length] = word
                length += 1
                before = word
    return length


@helper
def planes_from(words: Any, start: Any, length: Any, planes: Any) -> Any:
    """Reads from index start what ``write_planes`` wrote in length words; whether that was it."""
    count = planes.shape[1]
    marks = (count + 63) // 64
    if length < 3 * marks:
        return False
    at = start + 3 * marks
    end = start + length
    for plane in range(3):
        word = np.uint64(0)
        for mark in range(marks):
            changes = words[start + plane * marks + mark]
            first = mark * 64
            last = min(first + 64, count)
            if changes == 0:
                planes[plane, first:last] = word
                continue
            if at + count_bits(changes) > end:
                return False
            for index in range(first, last):
                if changes & ONE != 0:
                    word = words[at]
                    at += 1
                changes >>= ONE
                planes[plane, index] = word
            if changes != 0:
                return False
    return at == end


@helper
def halves_in(planes: Any, halves: Any) -> Any:
    """Numbers of hot and of cold halves; (-1, -1) where the planes contradict each other or pass the last half."""
    hots = 0
    colds = 0
    for word in range(planes.shape[1]):
        low = planes[LOW, word]
        high = planes[HIGH, word]
        exact = planes[EXACT, word]
        valid = ALL if halves - word * 64 >= 64 else (ONE << np.uint64(halves - word * 64)) - ONE
        if low & high != 0 or exact & ~(low | high) != 0 or (low | high) & ~valid != 0:
            return -1, -1
        hots += count_bits(valid & ~(low | high))
        colds += count_bits((low | high) & ~exact)
    return hots, colds


@kernel
def read_planes(words: Any, start: Any, length: Any, halves: Any, planes: Any) -> Any:
    """Numbers of hot and of cold halves of planes that ``write_planes`` wrote; (-1, -1): it did not write these."""
    if not planes_from(words, start, length, planes):
        return -1, -1
    return halves_in(planes, halves)


@kernel
def join(planes: Any, halves: Any, full: Any, hot: Any, cold: Any, flat: Any) -> None:
    """Writes the codes of all halves; undoes ``split``."""
    digits = 1 if flat.itemsize == 1 else WIDE_DIGITS
    hots = 0
    colds = 0
    for half in range(halves):
        word = half // 64
        bit = ONE << np.uint64(half & 63)
        if (planes[LOW, word] | planes[HIGH, word]) & bit == 0:
            copy_half(hot, 32 * hots, flat, 32 * half)
            hots += 1
            continue
        end = full if planes[HIGH, word] & bit != 0 else 0
        if planes[EXACT, word] & bit != 0:
            flat[32 * half : 32 * half + 32] = end
        else:
            unfold_half(cold, PAIRS * digits * colds, end, digits, flat, 32 * half)
            colds += 1
