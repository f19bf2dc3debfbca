"""Every compiled kernel. Private: the modules beside this one check what comes in and explain what is wrong.

Kernels that call each other share this file, since numba does not notice an edited callee elsewhere. None of them
reads a global that could be tuned, takes a function, or raises.

Codes are (M, P): M members, P pixels in row-major order. Weights are uint32 of sum W <= 2**16, so with S <= 65535
every weighted sum is at most S W <= 65535 * 2**16 = 2**32 - 2**16: it fits uint32, and so does every cut on it.

A weighted mean lies between the members' least and greatest code. With cut = ceil(cut_sum / W): where the greatest
code is below cut, sum <= (cut - 1) W < cut_sum; where the least code is at least cut, sum >= cut W >= cut_sum. Such a
pixel is decided without its sum, for every weight vector, and only the others are summed. Whole blocks of 64 pixels
are read as vectors, one bit word out; the pixels after the last whole block are summed one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from carvana_ens.core.jit import config, helper, kernel

cgutils: Any = numba_cgutils
types: Any = numba_types

ONE = np.uint64(1)
TOP_BIT = np.uint64(63)
MAGIC_SHIFT = np.uint64(48)
MAX_VALUE = 10**17
"""Numbers in an RLE text are read up to here; longer ones stay here, which is past the end of any picture."""

DENSE = 4
"""With more undecided pixels than this in a block, summing all 64 as vectors is faster than one by one."""

_LANES = 64
_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_V32 = ir.VectorType(_I32, _LANES)


def _splat(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, _LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), ir.Constant(_V32, [0] * _LANES))


def _for_each_member(context: Any, builder: Any, codes_type: Any, codes: Any, block: Any) -> Any:
    """(element type, vector type, M, function giving the vector of one member's 64 codes in the block)."""
    array = context.make_array(codes_type)(context, builder, codes)
    members, pixels = cgutils.unpack_tuple(builder, array.shape)
    element = ir.IntType(codes_type.dtype.bitwidth)
    vector = ir.VectorType(element, _LANES)
    first = builder.mul(block, ir.Constant(_I64, _LANES))

    def load(member: Any) -> Any:
        address = builder.gep(array.data, [builder.add(builder.mul(member, pixels), first)])
        loaded = builder.load(builder.bitcast(address, vector.as_pointer()))
        loaded.align = 1
        return loaded

    return element, vector, members, load


@intrinsic
def _bounds_vector(typing_context: Any, codes: Any, block: Any, low: Any, high: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes_, block_, low_, high_ = args
        element, vector, members, load = _for_each_member(context, builder, signature.args[0], codes_, block_)
        greatest = cgutils.alloca_once(builder, vector)
        least = cgutils.alloca_once(builder, vector)
        start = load(ir.Constant(_I64, 0))
        builder.store(start, greatest)
        builder.store(start, least)
        with cgutils.for_range(builder, members, start=ir.Constant(_I64, 1)) as loop:
            value = load(loop.index)
            for place, order in ((greatest, ">"), (least, "<")):
                best = builder.load(place)
                builder.store(builder.select(builder.icmp_unsigned(order, value, best), value, best), place)
        words = [
            builder.bitcast(
                builder.icmp_unsigned(">=", builder.load(place), _splat(builder, builder.trunc(cut, element))), _I64
            )
            for place, cut in ((greatest, low_), (least, high_))
        ]
        return context.make_tuple(builder, signature.return_type, words)

    signature = types.UniTuple(types.uint64, 2)(codes, types.int64, types.int64, types.int64)
    return signature, generate


def _weighted_sums(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The 64 weighted sums of a block as a vector of 32-bit integers."""
    codes, block, weights = args[:3]
    _, _, members, load = _for_each_member(context, builder, signature.args[0], codes, block)
    array = context.make_array(signature.args[2])(context, builder, weights)
    total = cgutils.alloca_once(builder, _V32)
    builder.store(ir.Constant(_V32, [0] * _LANES), total)
    with cgutils.for_range(builder, members) as loop:
        weight = _splat(builder, builder.load(builder.gep(array.data, [loop.index])))
        product = builder.mul(builder.zext(load(loop.index), _V32), weight)
        builder.store(builder.add(builder.load(total), product), total)
    return builder.load(total)


@intrinsic
def _reached_vector(typing_context: Any, codes: Any, block: Any, weights: Any, cut_sum: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums = _weighted_sums(context, builder, signature, args)
        return builder.bitcast(builder.icmp_unsigned(">=", sums, _splat(builder, args[3])), _I64)

    return types.uint64(codes, types.int64, weights, types.uint32), generate


@intrinsic
def _sums_vector(typing_context: Any, codes: Any, block: Any, weights: Any, out: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[3])(context, builder, args[3])
        sums = _weighted_sums(context, builder, signature, args)
        builder.store(sums, builder.bitcast(array.data, _V32.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.none(codes, types.int64, weights, out), generate


@intrinsic
def _lowest_bit_vector(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.cttz(args[0], ir.Constant(_I1, 0))

    return types.int64(types.uint64), generate


@intrinsic
def _count_vector(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


# NUMBA_DISABLE_JIT=1 runs kernels as plain Python, where intrinsics cannot run: slow twins stand in for them.


def _word(on: Any) -> np.uint64:
    return np.packbits(on, bitorder="little").view("<u8")[0]  # type: ignore[no-any-return]


def _part(codes: Any, block: int) -> Any:
    return codes[:, block * _LANES : (block + 1) * _LANES]


def _sums_of(codes: Any, block: int, weights: Any) -> Any:
    return (_part(codes, block).astype(np.uint64) * weights[:, None]).sum(0)


def _bounds_slow(codes: Any, block: int, low: int, high: int) -> tuple[np.uint64, np.uint64]:
    part = _part(codes, block)
    return _word(part.max(0) >= low), _word(part.min(0) >= high)


def _reached_slow(codes: Any, block: int, weights: Any, cut_sum: Any) -> np.uint64:
    return _word(_sums_of(codes, block, weights) >= cut_sum)


def _sums_slow(codes: Any, block: int, weights: Any, out: Any) -> None:
    out[:] = _sums_of(codes, block, weights)


def _lowest_bit_slow(word: np.uint64) -> int:
    return (int(word) & -int(word)).bit_length() - 1


def _count_slow(word: np.uint64) -> int:
    return int(word).bit_count()


_PLAIN = bool(config.DISABLE_JIT)
_bounds: Any = _bounds_slow if _PLAIN else _bounds_vector
"""(codes, block, low, high) -> words; bit k: greatest code >= low, least code >= high of pixel 64 block + k."""
_reached: Any = _reached_slow if _PLAIN else _reached_vector
"""(codes, block, weights, cut_sum) -> word; bit k: weighted sum >= cut_sum."""
_sums: Any = _sums_slow if _PLAIN else _sums_vector
"""(codes, block, weights, out): writes the 64 weighted sums of the block into out, uint32 (64,)."""
_lowest_bit: Any = _lowest_bit_slow if _PLAIN else _lowest_bit_vector
_count: Any = _count_slow if _PLAIN else _count_vector


@helper
def _sum_at(codes: Any, pixel: Any, weights: Any) -> Any:
    total = np.uint64(0)
    for member in range(codes.shape[0]):
        total += np.uint64(codes[member, pixel]) * np.uint64(weights[member])
    return total


@kernel
def blend(codes: Any, weights: Any, cut_sum: Any, cut: Any, bits: Any) -> None:
    """Sets bit p where the weighted sum of pixel p's codes reaches cut_sum; cut = ceil(cut_sum / W)."""
    pixels = codes.shape[1]
    blocks = pixels // 64
    for block in range(blocks):
        possible, certain = _bounds(codes, block, cut, cut)
        undecided = possible ^ certain
        if undecided != 0:
            if _count(undecided) > DENSE:
                certain = _reached(codes, block, weights, cut_sum)
            else:
                while undecided != 0:
                    bit = _lowest_bit(undecided)
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
def histogram(codes: Any, weights: Any, truth: Any, low: Any, high: Any, magic: Any, counts: Any) -> None:
    """Counts each pixel at [truth, level] with level = floor(sum / W); counts is flat, 2 copies of 2 (S + 1).

    Levels below low may be counted as 0, levels of at least high as S. Neighbours go to different copies, since they
    often have the same level and the next addition would wait for the last one.

    floor(sum / W) is (sum magic) >> 48 with magic = 2**48 // W + 1 = (2**48 + d) / W, 0 < d <= W: the product is
    sum / W + e with 0 < e <= sum / 2**48 < 2**-16 <= 1 / W, too little to reach the next integer; and
    sum magic <= S W (2**48 / W + 1) <= 65535 * 2**48 + 2**32 < 2**64.
    """
    pixels = codes.shape[1]
    blocks = pixels // 64
    levels = np.uint64(counts.size // 4)
    copy = np.uint64(counts.size // 2)
    sums = np.empty(64, np.uint32)
    below = 0
    below_object = 0
    above = 0
    above_object = 0
    for block in range(blocks):
        possible, certain = _bounds(codes, block, low, high)
        object_ = truth[block]
        undecided = possible ^ certain
        if _count(undecided) > DENSE:
            _sums(codes, block, weights, sums)
            for bit in range(0, 64, 2):
                row = (object_ >> np.uint64(bit)) & ONE
                counts[row * levels + ((np.uint64(sums[bit]) * magic) >> MAGIC_SHIFT)] += 1
                row = (object_ >> np.uint64(bit + 1)) & ONE
                counts[copy + row * levels + ((np.uint64(sums[bit + 1]) * magic) >> MAGIC_SHIFT)] += 1
            continue
        below += 64 - _count(possible)
        below_object += _count(object_ & ~possible)
        above += _count(certain)
        above_object += _count(object_ & certain)
        while undecided != 0:
            bit = _lowest_bit(undecided)
            undecided &= undecided - ONE
            row = (object_ >> np.uint64(bit)) & ONE
            counts[row * levels + ((_sum_at(codes, block * 64 + bit, weights) * magic) >> MAGIC_SHIFT)] += 1
    for pixel in range(blocks * 64, pixels):
        row = (truth[blocks] >> np.uint64(pixel - blocks * 64)) & ONE
        counts[row * levels + ((_sum_at(codes, pixel, weights) * magic) >> MAGIC_SHIFT)] += 1
    width = counts.size // 4
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
        both += _count(a[word] & b[word])
        in_a += _count(a[word])
        in_b += _count(b[word])
    return both, in_a, in_b


@kernel
def count_runs(bits: Any) -> Any:
    """Number of runs of set bits."""
    runs = 0
    carry = np.uint64(0)
    for index in range(bits.size):
        word = bits[index]
        runs += _count(word & ~((word << ONE) | carry))
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
            at = index * 64 + _lowest_bit(edges)
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
