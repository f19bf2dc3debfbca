"""The compiled kernels on bit words and run lengths. Private, like those on codes: ``rle.py`` checks and explains."""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import ONE, TOP_BIT, at_least, changing, count_bits, lowest_bit, put_word

ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
LARGEST = np.uint64(100_000_000)
ZEROS = np.uint64(0x3030_3030_3030_3030)
"""Eight times the digit 0."""
SPARE = 8
"""Octets past the end of a text that are written as well."""

MAX_VALUE = 10**17
"""Numbers in an RLE text are read up to here; longer ones stay here, which is past the end of any picture."""


@kernel
def pack_mask(flat: Any, bits: Any) -> None:
    """Sets bit p where octet p of a uint8 array is not 0."""
    blocks = flat.size // 64
    for block in range(blocks):
        bits[block] = at_least(flat, block, 1)
    if blocks < bits.size:
        word = np.uint64(0)
        for pixel in range(blocks * 64, flat.size):
            if flat[pixel] != 0:
                word |= ONE << np.uint64(pixel - blocks * 64)
        bits[blocks] = word


@kernel
def count_runs(bits: Any) -> Any:
    """Number of runs of set bits."""
    runs = count_bits(bits[0] & ~(bits[0] << ONE))
    for index in range(1, bits.size):
        runs += count_bits(bits[index] & ~((bits[index] << ONE) | (bits[index - 1] >> TOP_BIT)))
    return runs


@helper
def _eight_digits(value: Any) -> Any:
    """The digits of a number below 10**8 as octets of a word, the first one lowest.

    Halves, then pairs, then digits are divided all at a time, by reciprocals that are exact for numbers so small:
    10486 / 2**20 is 1 / 100 below 10**4, 103 / 2**10 is 1 / 10 below 100.
    """
    fours = value // np.uint64(10_000)
    fours |= (value - fours * np.uint64(10_000)) << np.uint64(32)
    pairs = ((fours * np.uint64(10_486)) >> np.uint64(20)) & np.uint64(0x7F_0000_007F)
    pairs |= (fours - pairs * np.uint64(100)) << np.uint64(16)
    tens = ((pairs * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F_000F_000F_000F)
    return tens | (pairs - tens * np.uint64(10)) << np.uint64(8)


@helper
def _write_number(value: Any, text: Any, at: Any) -> Any:
    """Writes the digits of a positive value below 10**17 and a space; returns the place after them.

    Up to ``SPARE`` more octets are written.
    """
    value = np.uint64(value)
    for power in (LARGEST * LARGEST, LARGEST):
        if value >= power:
            above = value // power
            value -= above * power
            at = _write_number_below(above, text, at)
            if power != LARGEST:
                above = value // LARGEST
                value -= above * LARGEST
                put_word(_eight_digits(above) | ZEROS, text, at)
                at += 8
            put_word(_eight_digits(value) | ZEROS, text, at)
            text[at + 8] = 32
            return at + 9
    at = _write_number_below(value, text, at)
    text[at] = 32
    return at + 1


@helper
def _write_number_below(value: Any, text: Any, at: Any) -> Any:
    """Writes the digits of a positive value below 10**8; returns the place after them."""
    digits = _eight_digits(value)
    leading = lowest_bit(digits) >> 3
    put_word((digits | ZEROS) >> np.uint64(8 * leading), text, at)
    return at + 8 - leading


@kernel
def write_runs(bits: Any, pixels: Any, text: Any) -> Any:
    """Writes 'start length ' of each run, starts counted from 1; returns the length without the last space.

    -1 where text may not have room for what is left, with ``SPARE`` octets more; ``room`` says what is enough.
    """
    length = 0
    start = -1
    last = text.size - room(WORD_RUNS, pixels)
    if last < 0:
        return -1
    for block in range((bits.size + 63) // 64):
        first = 64 * block
        if 0 < block < bits.size // 64:
            words = changing(bits, block)
        else:
            words = ALL if bits.size - first >= 64 else (ONE << np.uint64(bits.size - first)) - ONE
        while words != 0:
            index = first + lowest_bit(words)
            words &= words - ONE
            carry = bits[index - 1] >> TOP_BIT if index > 0 else np.uint64(0)
            edges = bits[index] ^ ((bits[index] << ONE) | carry)
            if length > last:
                return -1
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


WORD_RUNS = 34
"""Runs that may end in one word, and one more at the end of the picture."""


@helper
def _digits(value: Any) -> Any:
    digits = 1
    while value >= 10:
        value //= 10
        digits += 1
    return digits


@helper
def room(runs: Any, pixels: Any) -> Any:
    """Octets that the text of so many runs takes at most, and ``SPARE``."""
    return runs * 2 * (_digits(pixels) + 1) + SPARE


@kernel
def room_for(bits: Any, pixels: Any) -> Any:
    """Octets that are enough for ``write_runs``."""
    return room(count_runs(bits) + WORD_RUNS, pixels)


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


# COCO counts: the lengths of the runs of a mask read column by column, the first one of background.


@kernel
def column_edges(bits: Any, height: Any, width: Any, edges: Any, tally: Any) -> Any:
    """Sets the bit of each pixel that differs from the one before it in its column, and counts them by column.

    bits and edges are row-major. Before a column's top pixel comes the bottom one of the column to the left, before the
    very first pixel background. Returns the number of edges.
    """
    whole = width >> 6
    part = np.uint64(width & 63)
    rest = TOP_BIT - part
    # The mask against itself one row later: the row above the first one is background here.
    edges[:whole] = bits[:whole]
    if whole < bits.size:
        edges[whole] = bits[whole] ^ (bits[0] << part)
    here = bits[whole + 1 :]
    found = edges[whole + 1 :]
    above = bits[1:]
    for index in range(here.size):
        found[index] = here[index] ^ ((above[index] << part) | (bits[index] >> rest >> ONE))
    spare = np.uint64((height * width) & 63)
    if spare != 0:
        edges[edges.size - 1] &= (ONE << spare) - ONE
    bottom = (height - 1) * width
    for column in range(1, width):
        left = (bits[bottom >> 6] >> np.uint64(bottom & 63)) & ONE
        edges[column >> 6] ^= left << np.uint64(column & 63)
        bottom += 1
    tally[:] = 0
    total = 0
    start = 0
    for index in range(edges.size):
        word = edges[index]
        total += count_bits(word)
        while word != 0:
            at = index * 64 + lowest_bit(word)
            word &= word - ONE
            if at - start >= width:
                start = at // width * width
            tally[at - start] += 1
    return total


@kernel
def column_counts(edges: Any, height: Any, width: Any, tally: Any, counts: Any) -> None:
    """Turns what column_edges found into counts, one more than there are edges; tally is used up."""
    edge = 0
    for column in range(width):
        here = tally[column]
        tally[column] = edge
        edge += here
    row = 0
    start = 0
    for index in range(edges.size):
        word = edges[index]
        while word != 0:
            at = index * 64 + lowest_bit(word)
            word &= word - ONE
            if at - start >= width:
                row = at // width
                start = row * width
            column = at - start
            counts[tally[column]] = column * height + row
            tally[column] += 1
    counts[edge] = height * width
    for index in range(edge, 0, -1):
        counts[index] -= counts[index - 1]


@kernel
def write_counts(counts: Any, text: Any) -> Any:
    """Writes counts as COCO's text, see ``coco_counts.py``; returns its length."""
    length = 0
    for index in range(counts.size):
        value = counts[index]
        if index > 2:
            value -= counts[index - 2]
        more = True
        while more:
            piece = value & 31
            value >>= 5
            more = value != (-1 if piece & 16 else 0)
            text[length] = piece + (80 if more else 48)
            length += 1
    return length


TOO_LONG, CUT_OFF, NEGATIVE, WRONG_SUM = range(8, 12)
"""What read_counts found, beside FINE and BAD_CHARACTER."""

COUNT_CHARACTERS = 12
"""Of five bits each: enough for a sign and MAX_VALUE, and int64 has room for it."""


@kernel
def read_counts(text: Any, pixels: Any, counts: Any) -> Any:
    """Reads COCO's text into counts.

    Returns (what was found, number of counts before it, what the message needs). The last is the index of the
    character at fault, the negative count, or the sum so far.
    """
    count = 0
    value = 0
    shift = 0
    total = 0
    for at in range(text.size):
        piece: Any = np.int64(text[at]) - 48
        if piece < 0 or piece > 63:
            return BAD_CHARACTER, count, at
        if shift == 5 * COUNT_CHARACTERS:
            return TOO_LONG, count, at
        value |= (piece & 31) << shift
        shift += 5
        if piece & 32:
            continue
        if piece & 16:
            value -= 1 << shift
        if count > 2:
            value += counts[count - 2]
        if value < 0:
            return NEGATIVE, count, value
        counts[count] = value
        count += 1
        total += value
        if total > pixels:
            return WRONG_SUM, count, total
        value = 0
        shift = 0
    if shift != 0:
        return CUT_OFF, count, text.size
    return (FINE if total == pixels else WRONG_SUM), count, total


@kernel
def fill_columns(counts: Any, octets: Any) -> None:
    """Sets the object pixels of counts to 1; octets is (H, W) uint8, all 0.

    The first pixel of a run and the one after its last are marked in each column, and then each row, from the second
    on, is changed by the row above it: an object goes down from mark to mark.
    """
    height, width = octets.shape
    column = 0
    bottom = height
    at = 0
    for index in range(counts.size):
        end = at + counts[index]
        if index & 1 and end > at:
            while at >= bottom:
                column += 1
                bottom += height
            octets[at - bottom + height, column] ^= 1
            while end > bottom:
                column += 1
                bottom += height
                octets[0, column] ^= 1
            if end < bottom:
                octets[end - bottom + height, column] ^= 1
        at = end
    for row in range(1, height):
        above = octets[row - 1]
        here = octets[row]
        for place in range(width):
            here[place] ^= above[place]
