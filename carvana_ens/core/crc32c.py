"""The checksum crc32c (Castagnoli; RFC 3720, appendix B.4) inside a kernel. Elsewhere google-crc32c computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types as numba_types
from numba.extending import intrinsic

from carvana_ens.core.jit import config, helper

types: Any = numba_types

_POLYNOMIAL = 0x82F63B78
"""That of the checksum, its bits in reverse."""
_INSTRUCTIONS = {"sse4.2": "llvm.x86.sse42.crc32.64.64", "crc": "llvm.aarch64.crc32cx"}
"""By the name of the processor's feature: LLVM's function that adds eight octets to a checksum."""


def _tables() -> Any:
    """(8, 256) uint32: what an octet with k more behind it does to the checksum."""
    table = np.zeros((8, 256), np.uint32)
    for octet in range(256):
        rest = octet
        for _ in range(8):
            rest = rest >> 1 ^ (_POLYNOMIAL if rest & 1 else 0)
        table[0, octet] = rest
    for behind in range(1, 8):
        table[behind] = table[behind - 1] >> np.uint32(8) ^ table[0, table[behind - 1] & np.uint32(255)]
    return table


_TABLES = _tables()


def _instruction() -> str | None:
    """LLVM's name of this processor's instruction, if it has one and numba compiles for this processor."""
    if config.DISABLE_JIT or config.CPU_NAME or config.CPU_FEATURES:
        return None
    features = binding.get_host_cpu_features()
    return next((name for feature, name in _INSTRUCTIONS.items() if features.get(feature)), None)


_INSTRUCTION = _instruction()


@intrinsic
def _add_eight_by_instruction(typing_context: Any, crc: Any, octets: Any, at: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        data = context.make_array(signature.args[1])(context, builder, args[1]).data
        loaded = builder.load(builder.bitcast(builder.gep(data, [args[2]]), word.as_pointer()))
        loaded.align = 1
        state = word if "x86" in str(_INSTRUCTION) else ir.IntType(32)
        function = builder.module.declare_intrinsic(_INSTRUCTION, fnty=ir.FunctionType(state, [state, word]))
        before = builder.zext(args[0], state) if state is word else args[0]
        after = builder.call(function, [before, loaded])
        return builder.trunc(after, ir.IntType(32)) if state is word else after

    return types.uint32(types.uint32, octets, types.int64), generate


@helper
def _add_eight_by_tables(crc: Any, octets: Any, at: Any) -> Any:
    added = np.uint32(0)
    for place in range(8):
        octet = np.uint32(octets[at + place])
        if place < 4:
            octet ^= (crc >> np.uint32(8 * place)) & np.uint32(255)
        added ^= _TABLES[7 - place, octet]
    return added


_add_eight: Any = _add_eight_by_tables if _INSTRUCTION is None else _add_eight_by_instruction


@helper
def crc32c(octets: Any, begin: Any, end: Any) -> Any:
    """The checksum of octets[begin:end], uint32."""
    crc = np.uint32(0xFFFF_FFFF)
    at = begin
    while at + 8 <= end:
        crc = _add_eight(crc, octets, at)
        at += 8
    while at < end:
        crc = np.uint32(crc >> np.uint32(8)) ^ _TABLES[0, (crc ^ np.uint32(octets[at])) & np.uint32(255)]
        at += 1
    return crc ^ np.uint32(0xFFFF_FFFF)
