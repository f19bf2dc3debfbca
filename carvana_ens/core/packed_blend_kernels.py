"""The compiled kernels that blend packed maps; halves and planes as in ``packed_kernels.py``. Private, like those."""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.crc32c import crc32c
from carvana_ens.core.file_parts import read_part
from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.lz4 import SPARE, decode_block
from carvana_ens.core.packed_kernels import (
    ALL,
    EXACT,
    HIGH,
    LOW,
    PAIRS,
    WIDE_DIGITS,
    halves_in,
    planes_from,
    unfold_half,
)
from carvana_ens.core.rle_kernels import write_runs
from carvana_ens.core.vectors import ONE, add_half, count_bits, half_at_least, lowest_bit, narrow_sums

NONE, FULL, HOT, LOW_COLD, HIGH_COLD = range(5)
"""Kinds of halves: all codes 0, all codes the full scale, hot, and cold ones at either end, the last two."""
GIVEN = -2
"""In the place of a file's handle: the part was read before."""
FRAMING = 4
"""Octets of a hot part before its LZ4 block: how many octets that decodes to."""
STRIPE = 512
"""Cold halves of a stripe, one LZ4 block: a blend that needs one of them reads and decodes no more than these."""
STRIPE_ENTRY = 8
"""Octets for each stripe in the table behind a hot part's LZ4 block: its size and its crc32c, both uint32."""
COLD_OCTETS = WIDE_DIGITS * PAIRS
"""Octets of a cold half of uint16; one of uint8 takes a third of them."""
TOGETHER = 512
"""Open halves that are settled at a time, so that their codes take little room however many there are."""


@helper
def blend_packed(
    words: Any,
    starts: Any,
    lengths: Any,
    colds: Any,
    wide: Any,
    weights: Any,
    factors: Any,
    low: Any,
    high: Any,
    full: Any,
    cut_sum: Any,
    halves: Any,
    planes: Any,
    bits: Any,
    unclear: Any,
) -> Any:
    """Blends M packed maps whose parts that must be read lie in one buffer; returns (member at fault or -1, unclear).

    words: uint64, the buffer. starts, lengths: (M,) where each member's planes begin and how many words they take;
    its hot literals follow them, and then the next member. colds: (M,) how many cold halves each must have. wide: (M,)
    whether literals are uint16. weights: (M,) uint32. factors: (M,) uint32, weight of a literal. low, high, full:
    bounds of low and high halves and code of certainty, in the blend's scale. planes: (M, 3, words) to fill. bits:
    uint32, one for each half, 64 for each word of a plane. unclear: int64, the halves whose bits hang on codes that
    were not read.

    A low half of every member is below the cut and a high half of every member on or over it: the caller makes sure
    that W low < cut_sum <= W high. Of every other half, hot members enter with their codes, exact ones with 0 or full,
    and the others with the interval that their class leaves: where both its ends give the same bits, so does the truth.
    """
    members = starts.size
    octets = words.view(np.uint8)
    pairs = words.view(np.uint16)
    at = np.empty(members, np.int64)
    for member in range(members):
        if not planes_from(words, starts[member], lengths[member], planes[member]):
            return member, 0
        hots, counted = halves_in(planes[member], halves)
        size = 2 if wide[member] else 1
        begin = 8 * (starts[member] + lengths[member])
        end = 8 * starts[member + 1] if member + 1 < members else octets.size
        if hots < 0 or counted != colds[member] or begin + hots * 32 * size != end:
            return member, 0
        at[member] = begin // size
    sums = np.empty(32, np.uint32)
    lows, highs, exacts = np.empty((3, members), np.uint64)
    hot_at = np.empty(members, np.int64)
    hot_factors = np.empty(members, np.uint16)
    total = np.uint64(0)
    any_wide = False
    for member in range(members):
        total += np.uint64(weights[member]) * np.uint64(full)
        any_wide |= wide[member]
    narrow = total <= 65535 and not any_wide
    count = 0
    for word in range(planes.shape[2]):
        possible = np.uint64(0)
        certain = ALL
        for member in range(members):
            lows[member] = planes[member, LOW, word]
            highs[member] = planes[member, HIGH, word]
            exacts[member] = planes[member, EXACT, word]
            possible |= ~lows[member]
            certain &= highs[member]
        first = 64 * word
        valid = ALL if halves - first >= 64 else (ONE << np.uint64(halves - first)) - ONE
        if certain == 0:
            bits[first : first + 64] = 0
        elif certain == ALL:
            bits[first : first + 64] = 0xFFFF_FFFF
        else:
            for half in range(64):
                bits[first + half] = 0xFFFF_FFFF if (certain >> np.uint64(half)) & ONE != 0 else 0
        mixed = possible & ~certain & valid
        while mixed != 0:
            half = lowest_bit(mixed)
            bit = ONE << np.uint64(half)
            mixed &= mixed - ONE
            base = np.uint32(0)
            slack = np.uint32(0)
            hots = 0
            if not narrow:
                sums[:] = 0
            for member in range(members):
                if lows[member] & bit != 0:
                    if exacts[member] & bit == 0:
                        slack += weights[member] * low
                elif highs[member] & bit != 0:
                    if exacts[member] & bit != 0:
                        base += weights[member] * full
                    else:
                        base += weights[member] * high
                        slack += weights[member] * (full - high)
                else:
                    if narrow:
                        hot_at[hots] = at[member]
                        hot_factors[hots] = factors[member]
                        hots += 1
                    elif wide[member]:
                        add_half(sums, pairs, at[member], factors[member])
                    else:
                        add_half(sums, octets, at[member], factors[member])
                    at[member] += 32
            if base >= cut_sum:
                bits[first + half] = 0xFFFF_FFFF
                continue
            missing = cut_sum - base
            least_missing = missing - min(slack, missing)
            if narrow:
                least, greatest = narrow_sums(octets, hot_at, hot_factors, hots, missing, least_missing)
            else:
                least = half_at_least(sums, missing)
                greatest = half_at_least(sums, least_missing)
            if greatest != least:
                unclear[count] = first + half
                count += 1
            bits[first + half] = least
    return -1, count


@kernel
def blend_files(
    handles: Any,
    places: Any,
    begins: Any,
    crcs: Any,
    cold_places: Any,
    colds: Any,
    stored: Any,
    words: Any,
    starts: Any,
    lengths: Any,
    wide: Any,
    weights: Any,
    factors: Any,
    low: Any,
    high: Any,
    full: Any,
    cut_sum: Any,
    halves: Any,
    pixels: Any,
    planes: Any,
    bits: Any,
    unclear: Any,
    text: Any,
) -> Any:
    """Reads, checks and decodes M hot parts, blends them as ``blend_packed``, reads what bits hang on from the cold
    parts, and writes the mask's run lengths.

    handles: (M,) of open files, ``GIVEN`` for parts that lie in stored, checked. places: (M,) of the parts in the
    files. begins: (M + 1,) where they begin in stored, uint8, and where the last ends. crcs: (M,) crc32c. cold_places:
    (M,) of the cold parts in the files. starts: (M + 1,) where their words begin once they are decoded, and where the
    last ones end; stored and words have ``SPARE`` octets more. text: uint8 for the run lengths; empty, or too short,
    none are written.

    Returns (number at fault or -1, whether that part must be given, number of unclear halves, length of text or -1).
    Halves stay unclear where a stripe could not be read or is damaged: others say why not, or read it.
    """
    octets = words.view(np.uint8)
    members = handles.size
    for member in range(members):
        if handles[member] != GIVEN and not (
            handles[member] >= 0
            and read_part(handles[member], places[member], stored, begins[member], begins[member + 1])
            and crc32c(stored, begins[member], begins[member + 1]) == crcs[member]
        ):
            return member, True, 0, -1
    tables = np.empty(members, np.int64)
    for member in range(members):
        begin, end = 8 * starts[member], 8 * starts[member + 1]
        tables[member] = begins[member + 1] - STRIPE_ENTRY * stripes_of(colds[member])
        if not decode_block(stored, begins[member] + FRAMING, tables[member], octets, begin, end):
            return member, False, 0, -1
    fault, count = blend_packed(
        words[: starts[members]],
        starts[:members],
        lengths,
        colds,
        wide,
        weights,
        factors,
        low,
        high,
        full,
        cut_sum,
        halves,
        planes,
        bits,
        unclear,
    )
    for first in range(0, count, TOGETHER):
        chosen = unclear[first : min(first + TOGETHER, count)]
        shape = (chosen.size, members)
        kinds = np.empty(shape, np.uint8)
        numbers = np.empty(shape, np.int64)
        find_halves(planes, chosen, kinds, numbers)
        cold = np.empty((chosen.size, members, COLD_OCTETS), np.uint8)
        if not read_cold(handles, cold_places, stored, tables, colds, wide, kinds, numbers, cold):
            return -1, False, count, -1
        literals = starts[:members] + lengths
        settle(words, literals, wide, weights, factors, full, cut_sum, chosen, kinds, numbers, cold, bits)
    if fault >= 0 or text.size == 0:
        return fault, False, 0, -1
    mask = bits[:halves].view(np.uint64)
    cut_tail(mask, pixels)
    return -1, False, 0, write_runs(mask, pixels, text)


@helper
def cut_tail(mask: Any, pixels: Any) -> None:
    """Clears the bits past the last pixel."""
    if pixels % 64 != 0:
        mask[-1] &= (ONE << np.uint64(pixels % 64)) - ONE


@helper
def stripes_of(colds: Any) -> Any:
    """Number of stripes of so many cold halves."""
    return (colds + STRIPE - 1) // STRIPE


@helper
def _number_at(octets: Any, at: Any) -> Any:
    """The uint32 whose octets lie there, the lowest first."""
    number = np.int64(0)
    for place in range(4):
        number |= np.int64(octets[at + place]) << 8 * place
    return number


@helper
def read_cold(
    handles: Any,
    cold_places: Any,
    stored: Any,
    tables: Any,
    colds: Any,
    wide: Any,
    kinds: Any,
    places: Any,
    cold: Any,
) -> Any:
    """Reads, checks and decodes the stripes that hold the cold ones of some halves; whether all of that succeeded.

    handles, cold_places, stored: as in ``blend_files``. tables: (M,) where the members' tables of stripes begin in
    stored. kinds, places: as ``find_halves`` gives them. cold: uint8 (chosen, M, COLD_OCTETS) to write the halves into.
    """
    most = COLD_OCTETS * STRIPE
    room = most + most // 255 + 16  # what LZ4 makes of octets that do not compress
    packed = np.empty(room + SPARE, np.uint8)
    stripe = np.empty(most + SPARE, np.uint8)
    for member in range(colds.size):
        octets = COLD_OCTETS if wide[member] else PAIRS
        index, end, decoded = -1, cold_places[member], -1
        size = 0
        for number in range(kinds.shape[0]):
            if kinds[number, member] < LOW_COLD:
                continue
            place = places[number, member]
            while index < place // STRIPE:
                index += 1
                size = _number_at(stored, tables[member] + STRIPE_ENTRY * index)
                end += size
            if decoded != index:
                stop = octets * min(STRIPE, colds[member] - STRIPE * index)
                crc = _number_at(stored, tables[member] + STRIPE_ENTRY * index + 4)
                if not (
                    handles[member] >= 0
                    and size <= room
                    and read_part(handles[member], end - size, packed, 0, size)
                    and crc32c(packed, 0, size) == crc
                    and decode_block(packed, 0, size, stripe, 0, stop)
                ):
                    return False
                decoded = index
            begin = octets * (place % STRIPE)
            cold[number, member, :octets] = stripe[begin : begin + octets]
    return True


@kernel
def find_halves(planes: Any, chosen: Any, kinds: Any, places: Any) -> None:
    """Of the chosen halves, in increasing order, every member's kind and which of its kind it is, counted from 0.

    kinds: uint8, places: int64, (chosen, M); a place is written for hot and for cold ones.
    """
    members = planes.shape[0]
    hots = np.zeros(members, np.int64)
    colds = np.zeros(members, np.int64)
    word = 0
    for number in range(chosen.size):
        half = chosen[number]
        bit = ONE << np.uint64(half & 63)
        for member in range(members):
            for before in range(word, half // 64):
                either = planes[member, LOW, before] | planes[member, HIGH, before]
                hots[member] += count_bits(~either)
                colds[member] += count_bits(either & ~planes[member, EXACT, before])
            high = planes[member, HIGH, half // 64]
            exact = planes[member, EXACT, half // 64]
            either = planes[member, LOW, half // 64] | high
            if exact & bit != 0:
                kinds[number, member] = FULL if high & bit != 0 else NONE
            elif either & bit != 0:
                kinds[number, member] = HIGH_COLD if high & bit != 0 else LOW_COLD
                places[number, member] = colds[member] + count_bits(either & ~exact & (bit - ONE))
            else:
                kinds[number, member] = HOT
                places[number, member] = hots[member] + count_bits(~either & (bit - ONE))
        word = half // 64


@kernel
def settle(
    words: Any,
    literals: Any,
    wide: Any,
    weights: Any,
    factors: Any,
    full: Any,
    cut_sum: Any,
    chosen: Any,
    kinds: Any,
    places: Any,
    cold: Any,
    bits: Any,
) -> None:
    """Writes the bits of the chosen halves from all of their codes.

    words: the buffer of ``blend_packed``. literals: (M,) word at which a member's hot literals begin. kinds, places: as
    ``find_halves`` gives them. cold: uint8 (chosen, M, COLD_OCTETS), the cold ones as cold parts hold them. The rest as
    in ``blend_packed``.
    """
    octets = words.view(np.uint8)
    pairs = words.view(np.uint16)
    sums = np.empty(32, np.uint32)
    codes = np.empty(32, np.uint16)
    for number in range(chosen.size):
        sums[:] = 0
        for member in range(weights.size):
            kind = kinds[number, member]
            if kind == FULL:
                sums += np.uint32(weights[member] * full)
            elif kind >= LOW_COLD:
                top = 65535 if wide[member] else 255
                digits = WIDE_DIGITS if wide[member] else 1
                unfold_half(cold[number, member], 0, top if kind == HIGH_COLD else 0, digits, codes, 0)
                add_half(sums, codes, 0, factors[member])
            elif kind == HOT and wide[member]:
                add_half(sums, pairs, 4 * literals[member] + 32 * places[number, member], factors[member])
            elif kind == HOT:
                add_half(sums, octets, 8 * literals[member] + 32 * places[number, member], factors[member])
        bits[chosen[number]] = half_at_least(sums, cut_sum)
