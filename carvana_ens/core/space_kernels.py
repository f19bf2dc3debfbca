"""The compiled kernels of blending spaces. Private: the modules beside this one check what comes in.

Tables do not fall, so the bounds of ``kernels.py`` on values are bounds on codes: a member's value is at least v where
its code is at least the first one whose value is. ``firsts`` are those codes by member, one past the last code where
there is none. Only the pixels that the bounds leave are looked up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper, kernel
from carvana_ens.core.vectors import ONE, at_least, lowest_bit


@helper
def _value_sum(codes: Any, tables: Any, pixel: Any, weights: Any) -> Any:
    total = np.uint64(0)
    for member in range(codes.shape[0]):
        total += np.uint64(tables[member, codes[member, pixel]]) * np.uint64(weights[member])
    return total


@helper
def _reaching(codes: Any, block: Any, firsts: Any, values: Any) -> Any:
    """Words; bit k: the value of any member, of every member, reaches the bound at pixel 64 block + k.

    values: how many a table has, one more than the last code.
    """
    of_any = np.uint64(0)
    of_all = ~np.uint64(0)
    for member in range(codes.shape[0]):
        word = np.uint64(0)
        if firsts[member] < values:
            word = at_least(codes[member], block, firsts[member])
        of_any |= word
        of_all &= word
    return of_any, of_all


@kernel
def look_up(table: Any, codes: Any, out: Any) -> None:
    """out[p] = table[codes[p]]; out may be codes itself."""
    for pixel in range(codes.size):
        out[pixel] = table[codes[pixel]]


@kernel
def blend_values(codes: Any, tables: Any, firsts: Any, weights: Any, cut_sum: Any, bits: Any) -> None:
    """Sets bit p where the weighted sum of tables[m, codes[m, p]] reaches cut_sum; firsts: of ceil(cut_sum / W)."""
    pixels = codes.shape[1]
    blocks = pixels // 64
    for block in range(blocks):
        possible, certain = _reaching(codes, block, firsts, tables.shape[1])
        undecided = possible ^ certain
        while undecided != 0:
            bit = lowest_bit(undecided)
            undecided &= undecided - ONE
            if _value_sum(codes, tables, block * 64 + bit, weights) >= cut_sum:
                certain |= ONE << np.uint64(bit)
        bits[block] = certain
    if blocks < bits.size:
        word = np.uint64(0)
        for pixel in range(blocks * 64, pixels):
            if _value_sum(codes, tables, pixel, weights) >= cut_sum:
                word |= ONE << np.uint64(pixel - blocks * 64)
        bits[blocks] = word


@kernel
def bound_values(codes: Any, lows: Any, highs: Any, values: Any, possible: Any, certain: Any) -> None:
    """Sets bit p of possible where any code is at least its low, of certain where every code is at least its high."""
    pixels = codes.shape[1]
    blocks = pixels // 64
    for block in range(blocks):
        possible[block] = _reaching(codes, block, lows, values)[0]
        certain[block] = _reaching(codes, block, highs, values)[1]
    if blocks < possible.size:
        possible[blocks] = 0
        certain[blocks] = 0
        for pixel in range(blocks * 64, pixels):
            of_any = False
            of_all = True
            for member in range(codes.shape[0]):
                of_any |= codes[member, pixel] >= lows[member]
                of_all &= codes[member, pixel] >= highs[member]
            bit = ONE << np.uint64(pixel - blocks * 64)
            if of_any:
                possible[blocks] |= bit
            if of_all:
                certain[blocks] |= bit
