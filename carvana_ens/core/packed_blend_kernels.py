"""The compiled kernels that blend packed maps; halves and planes as in ``packed_kernels.py``. Private, like those."""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.crc32c import crc32c
from carvana_ens.core.file_parts import read_part
from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.lz4 import decode_block
from carvana_ens.core.packed_kernels import ALL, EXACT, HIGH, LOW, halves_in, planes_from
from carvana_ens.core.rle_kernels import write_runs
from carvana_ens.core.vectors import ONE, add_half, count_bits, half_at_least, lowest_bit, narrow_sums

HOT, COLD, NONE, FULL = range(4)
"""Kinds of halves: hot, cold, all codes 0, all codes the full scale."""
GIVEN = -2
"""In the place of a file's handle: the part was read before."""
FRAMING = 4
"""Octets of a hot part before its LZ4 block: how many octets that decodes to."""


@helper
def blend_packed(
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
    planes: Any,
    bits: Any,
    unclear: Any,
) -> Any:
    """Blends M packed maps whose parts that must be read lie in one buffer; returns (member at fault or -1, unclear).

    words: uint64, the buffer. starts, lengths: (M,) where each member's planes begin and how many words they take;
    its hot literals follow them, and then the next member. wide: (M,) whether these are uint16. weights: (M,) uint32.
    factors: (M,) uint32, weight of a literal. low, high, full: bounds of low and high halves and code of certainty, in
    the blend's scale. planes: (M, 3, words) to fill. bits: uint32, one for each half, 64 for each word of a plane.
    unclear: int64, the halves whose bits hang on codes that were not read.

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
        hots, _ = halves_in(planes[member], halves)
        size = 2 if wide[member] else 1
        begin = 8 * (starts[member] + lengths[member])
        end = 8 * starts[member + 1] if member + 1 < members else octets.size
        if hots < 0 or begin + hots * 32 * size != end:
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
    """Reads, checks and decodes M hot parts, then blends as ``blend_packed`` and writes the mask's run lengths.

    handles: (M,) of open files, ``GIVEN`` for parts that lie in stored, checked. places: (M,) of the parts in the
    files. begins: (M + 1,) where they begin in stored, uint8, and where the last ends. crcs: (M,) crc32c. starts:
    (M + 1,) where their words begin once they are decoded, and where the last ones end; stored and words have
    ``SPARE`` octets more. text: uint8 for the run lengths; empty, or too short, none are written.

    Returns (number at fault or -1, whether that part must be given, number of unclear halves, length of text or -1).
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
    for member in range(members):
        begin, end = 8 * starts[member], 8 * starts[member + 1]
        if not decode_block(stored, begins[member] + FRAMING, begins[member + 1], octets, begin, end):
            return member, False, 0, -1
    fault, count = blend_packed(
        words[: starts[members]],
        starts[:members],
        lengths,
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
    if fault >= 0 or count > 0 or text.size == 0:
        return fault, False, count, -1
    mask = bits[:halves].view(np.uint64)
    cut_tail(mask, pixels)
    return -1, False, 0, write_runs(mask, pixels, text)


@helper
def cut_tail(mask: Any, pixels: Any) -> None:
    """Clears the bits past the last pixel."""
    if pixels % 64 != 0:
        mask[-1] &= (ONE << np.uint64(pixels % 64)) - ONE


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
                kinds[number, member] = COLD
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
    ``find_halves`` gives them. cold: uint16 (chosen, M, 32), codes of the cold ones. The rest as in ``blend_packed``.
    """
    octets = words.view(np.uint8)
    pairs = words.view(np.uint16)
    sums = np.empty(32, np.uint32)
    for number in range(chosen.size):
        sums[:] = 0
        for member in range(weights.size):
            kind = kinds[number, member]
            if kind == FULL:
                sums += np.uint32(weights[member] * full)
            elif kind == COLD:
                add_half(sums, cold[number, member], 0, factors[member])
            elif kind == HOT and wide[member]:
                add_half(sums, pairs, 4 * literals[member] + 32 * places[number, member], factors[member])
            elif kind == HOT:
                add_half(sums, octets, 8 * literals[member] + 32 * places[number, member], factors[member])
        bits[chosen[number]] = half_at_least(sums, cut_sum)
