"""The compiled kernels on bit words and run lengths. Private, like those on codes: ``rle.py`` checks and explains."""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import ONE, TOP_BIT, count_bits, lowest_bit, nonzero

MAX_VALUE = 10**17
"""Numbers in an RLE text are read up to here; longer ones stay here, which is past the end of any picture."""


@kernel
def pack_mask(flat: Any, bits: Any) -> Any:
    """Sets bit p where octet p of a uint8 array is not 0; returns the number of runs of set bits."""
    blocks = flat.size // 64
    runs = 0
    carry = np.uint64(0)
    for block in range(blocks):
        word = nonzero(flat, block)
        bits[block] = word
        runs += count_bits(word & ~((word << ONE) | carry))
        carry = word >> TOP_BIT
    if blocks < bits.size:
        word = np.uint64(0)
        for pixel in range(blocks * 64, flat.size):
            if flat[pixel] != 0:
                word |= ONE << np.uint64(pixel - blocks * 64)
        bits[blocks] = word
        runs += count_bits(word & ~((word << ONE) | carry))
    return runs


@kernel
def count_runs(bits: Any) -> Any:
    """Number of runs of set bits."""
    runs = 0
    carry = np.uint64(0)
    for index in range(bits.size):
        word = bits[index]
        runs += count_bits(word & ~((word << ONE) | carry))
        carry = word >> TOP_BIT
    return runs


@helper
def _write_number(value: Any, text: Any, at: Any) -> Any:
    """Writes the digits of value and a space; returns the place after them."""
    value = np.uint64(value)
    ten = np.uint64(10)
    zero = np.uint64(48)
    end = at + 1
    rest = value // ten
    while rest != 0:
        end += 1
        rest //= ten
    text[end] = 32
    after = end + 1
    while end > at:
        end -= 1
        rest = value // ten
        text[end] = np.uint8(zero + (value - rest * ten))
        value = rest
    return after


@kernel
def write_runs(bits: Any, pixels: Any, text: Any) -> Any:
    """Writes 'start length ' of each run, starts counted from 1; returns the length without the last space."""
    length = 0
    start = -1
    carry = np.uint64(0)
    for index in range(bits.size):
        word = bits[index]
        edges = word ^ ((word << ONE) | carry)
        carry = word >> TOP_BIT
        while edges != 0:
            at = index * 64 + lowest_bit(edges)
            edges &= edges - ONE
            if start < 0:
                start = at
            else:
                length = _write_number(start + 1, text, length)
                length = _write_number(at - start, text, length)
                start = -1
    if start >= 0:
        length = _write_number(start + 1, text, length)
        length = _write_number(pixels - start, text, length)
    return max(length - 1, 0)


FINE, BAD_CHARACTER, BAD_SPACE, ODD, START_ZERO, LENGTH_ZERO, OVERLAP, PAST_END = range(8)
"""What read_runs found."""


@kernel
def read_runs(text: Any, pixels: Any, runs: Any) -> Any:
    """Reads 'start length ...' into runs, (R, 2) first and past-last pixel counted from 0.

    Returns (what was found, number of whole runs before it, index of the character at fault).
    """
    count = 0
    start = 0
    value = 0
    digits = 0
    in_length = False
    before = 0
    for at in range(text.size + 1):
        character = text[at] if at < text.size else 32
        if 48 <= character <= 57:
            value = min(value * 10 + (character - 48), MAX_VALUE)
            digits += 1
            continue
        if character != 32:
            return BAD_CHARACTER, count, at
        if digits == 0:
            return BAD_SPACE, count, at
        if not in_length:
            if value == 0:
                return START_ZERO, count, at
            start = value
        else:
            if value == 0:
                return LENGTH_ZERO, count, at
            if start <= before:
                return OVERLAP, count, at
            before = start + value - 1
            if before > pixels:
                return PAST_END, count, at
            runs[count, 0] = start - 1
            runs[count, 1] = before
            count += 1
        in_length = not in_length
        value = 0
        digits = 0
    return (ODD if in_length else FINE), count, text.size


@kernel
def fill_runs(runs: Any, flat: Any) -> None:
    """Sets flat[first:past_last] of each run."""
    for run in range(runs.shape[0]):
        flat[runs[run, 0] : runs[run, 1]] = True
