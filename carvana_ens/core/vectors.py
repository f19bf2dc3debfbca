"""Vector operations on blocks of 64 pixels, as LLVM intrinsics. Only kernels call them. Slow twins: ``vector_twins``.

Codes are (M, P): M members, P pixels in row-major order. Weights are uint32 of sum W <= 2**16, so with S <= 65535
every weighted sum is at most S W <= 65535 * 2**16 = 2**32 - 2**16: it fits uint32, and so does every cut on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from carvana_ens.core import vector_twins as twins
from carvana_ens.core.jit import config

cgutils: Any = numba_cgutils
types: Any = numba_types

ONE = np.uint64(1)
TOP_BIT = np.uint64(63)

AHEAD = 16
"""Blocks that the codes are asked for ahead of their use: the processor's own guesses stop at each page of 4 KiB."""

_LANES = 64
HALF = 32
"""Pixels of half a block."""
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
_DOUBLE = ir.DoubleType()
_V32 = ir.VectorType(_I32, _LANES)
_V64 = ir.VectorType(_DOUBLE, _LANES)


def _splat(builder: Any, value: Any, lanes: int = _LANES) -> Any:
    vector = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _prefetch(builder: Any, vector_pointer: Any, octets: int) -> None:
    """Asks for the cache lines of the block that comes AHEAD blocks later; past the end it does nothing."""
    pointer = _I8.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    start = builder.bitcast(vector_pointer, pointer)
    for line in range(0, octets, 64):
        address = builder.gep(start, [ir.Constant(_I64, AHEAD * octets + line)])
        builder.call(function, [address, *(ir.Constant(_I32, flag) for flag in (0, 3, 1))])  # read, keep, data


def _for_each_member(context: Any, builder: Any, codes_type: Any, codes: Any, block: Any, ahead: bool = False) -> Any:
    """(element type, vector type, M, function giving the vector of one member's 64 codes in the block).

    ahead: whether a later block is asked for with each load; once for each block is enough.
    """
    array = context.make_array(codes_type)(context, builder, codes)
    members, pixels = cgutils.unpack_tuple(builder, array.shape)
    element = ir.IntType(codes_type.dtype.bitwidth)
    vector = ir.VectorType(element, _LANES)
    first = builder.mul(block, ir.Constant(_I64, _LANES))

    def load(member: Any) -> Any:
        address = builder.gep(array.data, [builder.add(builder.mul(member, pixels), first)])
        place = builder.bitcast(address, vector.as_pointer())
        if ahead:
            _prefetch(builder, place, _LANES * element.width // 8)
        loaded = builder.load(place)
        loaded.align = 1
        return loaded

    return element, vector, members, load


@intrinsic
def _bounds_vector(typing_context: Any, codes: Any, block: Any, low: Any, high: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes_, block_, low_, high_ = args
        element, vector, members, load = _for_each_member(
            context, builder, signature.args[0], codes_, block_, ahead=True
        )
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
def _levels_vector(
    typing_context: Any,  # noqa: ARG001
    codes: Any,
    block: Any,  # noqa: ARG001
    weights: Any,
    inverse: Any,  # noqa: ARG001
    chosen: Any,  # noqa: ARG001
    step: Any,  # noqa: ARG001
    out: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        inverse_, chosen_, step_ = args[3:6]
        array = context.make_array(signature.args[6])(context, builder, args[6])
        sums = builder.uitofp(_weighted_sums(context, builder, signature, args), _V64)
        levels = builder.fptosi(builder.fmul(sums, _splat(builder, inverse_)), _V32)
        steps = _splat(builder, builder.trunc(step_, _I32))
        lanes = builder.bitcast(chosen_, ir.VectorType(_I1, _LANES))
        moved = builder.select(lanes, builder.add(levels, steps), levels)
        builder.store(moved, builder.bitcast(array.data, _V32.as_pointer())).align = 4
        return context.get_dummy_value()

    arguments = (codes, types.int64, weights, types.float64, types.uint64, types.int64, out)
    return types.none(*arguments), generate


@intrinsic
def _at_least_vector(typing_context: Any, flat: Any, block: Any, value: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        element = ir.IntType(signature.args[0].dtype.bitwidth)
        address = builder.gep(array.data, [builder.mul(args[1], ir.Constant(_I64, _LANES))])
        place = builder.bitcast(address, ir.VectorType(element, _LANES).as_pointer())
        _prefetch(builder, place, _LANES * element.width // 8)
        loaded = builder.load(place)
        loaded.align = 1
        least = _splat(builder, builder.trunc(args[2], element))
        return builder.bitcast(builder.icmp_unsigned(">=", loaded, least), _I64)

    return types.uint64(flat, types.int64, types.int64), generate


def _part_of(builder: Any, context: Any, array_type: Any, array: Any, at: Any, lanes: int) -> Any:
    """Pointer to a vector of that many elements of an array, from index at."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(ir.IntType(array_type.dtype.bitwidth), lanes)
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _copying(lanes: int) -> Any:
    """The intrinsic that copies so many elements; where they overlap, all are read before the first is written."""

    @intrinsic
    def copy(typing_context: Any, source: Any, at: Any, target: Any, to: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded = builder.load(_part_of(builder, context, signature.args[0], args[0], args[1], lanes))
            loaded.align = 1
            builder.store(loaded, _part_of(builder, context, signature.args[2], args[2], args[3], lanes)).align = 1
            return context.get_dummy_value()

        return types.none(source, types.int64, target, types.int64), generate

    return copy


@intrinsic
def _fill_16_vector(typing_context: Any, value: Any, target: Any, to: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _part_of(builder, context, signature.args[1], args[1], args[2], 16)
        builder.store(_splat(builder, args[0], 16), place).align = 1
        return context.get_dummy_value()

    return types.none(types.uint8, target, types.int64), generate


@intrinsic
def _add_half_vector(typing_context: Any, sums: Any, source: Any, at: Any, factor: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total = _part_of(builder, context, signature.args[0], args[0], ir.Constant(_I64, 0), HALF)
        loaded = builder.load(_part_of(builder, context, signature.args[1], args[1], args[2], HALF))
        loaded.align = 1
        wide = builder.zext(loaded, ir.VectorType(_I32, HALF))
        before = builder.load(total)
        before.align = 4
        product = builder.mul(wide, _splat(builder, args[3], HALF))
        builder.store(builder.add(before, product), total).align = 4
        return context.get_dummy_value()

    return types.none(sums, source, types.int64, types.uint32), generate


@intrinsic
def _half_at_least_vector(typing_context: Any, sums: Any, value: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_part_of(builder, context, signature.args[0], args[0], ir.Constant(_I64, 0), HALF))
        loaded.align = 4
        return builder.bitcast(builder.icmp_unsigned(">=", loaded, _splat(builder, args[1], HALF)), _I32)

    return types.uint32(sums, types.uint32), generate


@intrinsic
def _narrow_sums_vector(
    typing_context: Any,  # noqa: ARG001
    octets: Any,
    places: Any,
    factors: Any,
    count: Any,  # noqa: ARG001
    first: Any,  # noqa: ARG001
    second: Any,  # noqa: ARG001
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        octets_, places_, factors_, count_, first_, second_ = args
        places_data = context.make_array(signature.args[1])(context, builder, places_).data
        factors_data = context.make_array(signature.args[2])(context, builder, factors_).data
        vector = ir.VectorType(_I16, HALF)
        total = cgutils.alloca_once(builder, vector)
        builder.store(ir.Constant(vector, [0] * HALF), total)
        with cgutils.for_range(builder, count_) as loop:
            place = builder.load(builder.gep(places_data, [loop.index]))
            loaded = builder.load(_part_of(builder, context, signature.args[0], octets_, place, HALF))
            loaded.align = 1
            factor = builder.load(builder.gep(factors_data, [loop.index]))
            product = builder.mul(builder.zext(loaded, vector), _splat(builder, factor, HALF))
            builder.store(builder.add(builder.load(total), product), total)
        words = [
            builder.bitcast(
                builder.icmp_unsigned(">=", builder.load(total), _splat(builder, builder.trunc(cut, _I16), HALF)), _I32
            )
            for cut in (first_, second_)
        ]
        return context.make_tuple(builder, signature.return_type, words)

    signature = types.UniTuple(types.uint32, 2)(octets, places, factors, types.int64, types.uint32, types.uint32)
    return signature, generate


@intrinsic
def _changing_vector(typing_context: Any, bits: Any, block: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.mul(args[1], ir.Constant(_I64, _LANES))
        vectors = []
        for at in (first, builder.sub(first, ir.Constant(_I64, 1))):
            place = _part_of(builder, context, signature.args[0], args[0], at, _LANES)
            if at is first:
                _prefetch(builder, place, 8 * _LANES)
            loaded = builder.load(place)
            loaded.align = 8
            vectors.append(loaded)
        words, before = vectors
        one, top = (ir.Constant(words.type, [shift] * _LANES) for shift in (1, 63))
        moved = builder.or_(builder.shl(words, one), builder.lshr(before, top))
        return builder.bitcast(builder.icmp_unsigned("!=", words, moved), _I64)

    return types.uint64(bits, types.int64), generate


@intrinsic
def _put_word_vector(typing_context: Any, word: Any, octets: Any, at: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[1])(context, builder, args[1]).data
        place = builder.bitcast(builder.gep(data, [args[2]]), _I64.as_pointer())
        builder.store(args[0], place).align = 1
        return context.get_dummy_value()

    return types.none(types.uint64, octets, types.int64), generate


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


_PLAIN = bool(config.DISABLE_JIT)
bounds: Any = twins.bounds if _PLAIN else _bounds_vector
"""(codes, block, low, high) -> words; bit k: greatest code >= low, least code >= high of pixel 64 block + k."""
reached: Any = twins.reached if _PLAIN else _reached_vector
"""(codes, block, weights, cut_sum) -> word; bit k: weighted sum >= cut_sum."""
levels_of: Any = twins.levels_of if _PLAIN else _levels_vector
"""(codes, block, weights, inverse, chosen, step, out): writes truncated sum * inverse of the block's 64 pixels into
out, uint32 (64,), and adds step where chosen has its bit."""
at_least: Any = twins.at_least if _PLAIN else _at_least_vector
"""(flat, block, value) -> word; bit k: element 64 block + k of an array of unsigned integers >= value."""
_copying_one: Any = twins.copying if _PLAIN else _copying
copy_half: Any = _copying_one(HALF)
"""(source, at, target, to): copies 32 elements from one index to another."""
copy_16: Any = _copying_one(16)
"""The same for 16."""
copy_8: Any = _copying_one(8)
"""The same for 8."""
fill_16: Any = twins.fill_16 if _PLAIN else _fill_16_vector
"""(value, target, to): writes an octet 16 times from an index on."""
add_half: Any = twins.add_half if _PLAIN else _add_half_vector
"""(sums, source, at, factor): adds factor times 32 elements of source from index at to sums, uint32 (32,)."""
half_at_least: Any = twins.half_at_least if _PLAIN else _half_at_least_vector
"""(sums, value) -> uint32; bit k: element k of sums, uint32 (32,), >= value."""
narrow_sums: Any = twins.narrow_sums if _PLAIN else _narrow_sums_vector
"""(octets, places, factors, count, first, second) -> two words; bit k: the sum of factors, uint16, times the octets at
places + k, over count members, is >= first, >= second. No sum and no cut may be past 65535."""
changing: Any = twins.changing if _PLAIN else _changing_vector
"""(bits, block) -> word; bit k: two neighbours differ in word 64 block + k and the pixel before it; not of block 0."""
put_word: Any = twins.put_word if _PLAIN else _put_word_vector
"""(word, octets, at): writes a word as 8 octets, the lowest first, from index at on."""
lowest_bit: Any = twins.lowest_bit if _PLAIN else _lowest_bit_vector
"""Index of the lowest set bit of a word that is not 0."""
count_bits: Any = twins.count_bits if _PLAIN else _count_vector
"""Number of set bits of a word."""
