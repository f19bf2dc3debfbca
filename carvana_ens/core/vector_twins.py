"""Slow twins of the vector operations of ``vectors.py``, under their names there.

NUMBA_DISABLE_JIT=1 runs kernels as plain Python, where intrinsics cannot run: these stand in for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_LANES = 64
_HALF = 32


def _word(on: Any) -> np.uint64:
    return np.packbits(on, bitorder="little").view("<u8")[0]  # type: ignore[no-any-return]


def _part(codes: Any, block: int) -> Any:
    return codes[:, block * _LANES : (block + 1) * _LANES]


def _sums_of(codes: Any, block: int, weights: Any) -> Any:
    return (_part(codes, block).astype(np.uint64) * weights[:, None]).sum(0)


def bounds(codes: Any, block: int, low: int, high: int) -> tuple[np.uint64, np.uint64]:
    part = _part(codes, block)
    return _word(part.max(0) >= low), _word(part.min(0) >= high)


def reached(codes: Any, block: int, weights: Any, cut_sum: Any) -> np.uint64:
    return _word(_sums_of(codes, block, weights) >= cut_sum)


def levels_of(codes: Any, block: int, weights: Any, inverse: float, chosen: np.uint64, step: int, out: Any) -> None:
    levels = (_sums_of(codes, block, weights) * inverse).astype(np.int64)
    lanes = np.unpackbits(np.array([chosen], "<u8").view(np.uint8), bitorder="little")
    out[:] = levels + np.where(lanes, step, 0)


def at_least(flat: Any, block: int, value: int) -> np.uint64:
    return _word(flat[block * _LANES : (block + 1) * _LANES] >= value)


def copying(lanes: int) -> Any:
    def copy(source: Any, at: int, target: Any, to: int) -> None:
        target[to : to + lanes] = source[at : at + lanes].copy()

    return copy


def fill_16(value: Any, target: Any, to: int) -> None:
    target[to : to + 16] = value


def add_half(sums: Any, source: Any, at: int, factor: Any) -> None:
    sums += source[at : at + _HALF].astype(np.uint32) * np.uint32(factor)


def half_at_least(sums: Any, value: Any) -> np.uint32:
    return np.packbits(sums >= value, bitorder="little").view("<u4")[0]  # type: ignore[no-any-return]


def narrow_sums(
    octets: Any, places: Any, factors: Any, count: int, first: Any, second: Any
) -> tuple[np.uint32, np.uint32]:
    sums = np.zeros(_HALF, np.uint32)
    for at, factor in zip(places[:count], factors[:count], strict=True):
        add_half(sums, octets, at, factor)
    return half_at_least(sums, first), half_at_least(sums, second)


def changing(bits: Any, block: int) -> np.uint64:
    words = bits[block * _LANES : (block + 1) * _LANES]
    before = bits[block * _LANES - 1 : (block + 1) * _LANES - 1]
    return _word(words != (words << np.uint64(1) | before >> np.uint64(63)))


def put_word(word: np.uint64, octets: Any, at: int) -> None:
    octets[at : at + 8] = np.array([word], "<u8").view(np.uint8)


def lowest_bit(word: np.uint64) -> int:
    return (int(word) & -int(word)).bit_length() - 1


def count_bits(word: np.uint64) -> int:
    return int(word).bit_count()
