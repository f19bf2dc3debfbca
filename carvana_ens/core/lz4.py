"""Decoding LZ4 blocks inside a kernel: a call of a library for each map costs an image of many members more than it.

The block format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md. Elsewhere the library lz4 decodes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carvana_ens.core.jit import helper
from carvana_ens.core.vectors import copy_8, copy_16, fill_16

SPARE = 32
"""Octets behind a block, and behind what it is decoded into, that are read or written as well."""


@helper
def _octet(source: Any, at: Any) -> Any:
    return np.int64(source[np.uint64(at)])


@helper
def _more(source: Any, at: Any, end: Any) -> Any:
    """(what the octets of a long length add to it, index behind them); (-1, end) where they do not end."""
    total = 0
    while at < end:
        octet = _octet(source, at)
        at += 1
        total += octet
        if octet != 255:
            return total, at
    return -1, end


@helper
def decode_block(source: Any, at: Any, end: Any, out: Any, to: Any, stop: Any) -> Any:
    """Decodes the block source[at:end] into exactly out[to:stop]; whether it was one that fits.

    source, out: octets, with ``SPARE`` more behind end and stop. Any octets may be given: nothing else is touched.
    """
    start = to
    while at < end:
        token = _octet(source, at)
        at += 1
        literals = token >> 4
        length = token & 15
        if literals < 15 and at + 16 < end and to + 16 <= stop:
            copy_16(source, at, out, to)
            at += literals
            to += literals
        else:
            if literals == 15:
                added, at = _more(source, at, end)
                if added < 0:
                    return False
                literals += added
            if at + literals > end or to + literals > stop:
                return False
            for step in range(0, literals, 16):
                copy_16(source, at + step, out, to + step)
            at += literals
            to += literals
            if at == end:
                return to == stop
            if at + 2 > end:
                return False
        offset = _octet(source, at) | _octet(source, at + 1) << 8
        at += 2
        if offset == 0 or offset > to - start:
            return False
        if length == 15:
            added, at = _more(source, at, end)
            if added < 0:
                return False
            length += added
        goal = to + length + 4
        if goal > stop:
            return False
        if offset >= 16:
            while to < goal:
                copy_16(out, to - offset, out, to)
                to += 16
        elif offset == 1:
            value = out[to - 1]
            while to < goal:
                fill_16(value, out, to)
                to += 16
        else:
            # a period shorter than 8 is written octet by octet until several of them are as long
            far = offset
            while far < 8:
                far += offset
            if far != offset:
                for place in range(to, min(goal, to + far)):
                    out[place] = out[place - offset]
                to += far
            while to < goal:
                copy_8(out, to - far, out, to)
                to += 8
        to = goal
    return False
