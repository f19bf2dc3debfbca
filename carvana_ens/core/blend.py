"""The weighted blend of probability codes, cut at a threshold: exact, whatever the order, threads or machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import kernels
from carvana_ens.core.jit import run
from carvana_ens.core.rle import bits_mask
from carvana_ens.core.weights import MAX_WEIGHT_SUM, cut_sum, parse_threshold
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Bits, Codes, Mask, Size

StackedCodes = NDArray[np.uint8] | NDArray[np.uint16]
"""(M, P) C-contiguous: the codes of M members, P = H W pixels in row-major order."""

FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The code of probability 1 by dtype."""

_UINT16_STEP = 257
"""65535 / 255: the exact step from uint8 codes to uint16 codes."""


def stack_codes(maps: Sequence[Codes]) -> tuple[StackedCodes, int]:
    """The members' maps, each (H, W), as one (M, P) array and its full scale.

    The dtype is uint8 (full scale 255) if all are, else uint16 (65535): then uint8 codes are multiplied by 257.

    Raises:
        UsageError: no maps, or one that is no (H, W) array of uint8 or uint16.
        DataError: maps of different sizes.
    """
    if not len(maps):
        raise UsageError("no maps to blend: give at least one")
    for index, codes in enumerate(maps):
        if not isinstance(codes, np.ndarray) or codes.dtype not in FULL_SCALE or codes.ndim != 2 or not codes.size:
            raise UsageError(f"map {index} is {_describe(codes)}: codes are uint8 or uint16 (H, W)")
        if codes.shape != maps[0].shape:
            raise DataError(
                f"map {index} is {Size(*codes.shape)}, map 0 is {Size(*maps[0].shape)}: maps must be of one size"
            )
    wide = any(codes.dtype == np.uint16 for codes in maps)
    stack: Any = np.empty((len(maps), maps[0].size), np.uint16 if wide else np.uint8)
    for row, codes in zip(stack, maps, strict=True):
        step = _UINT16_STEP if codes.dtype != row.dtype else 1
        np.multiply(codes, row.dtype.type(step), out=row.reshape(codes.shape))
    return stack, FULL_SCALE[stack.dtype]


def blend_bits(codes: StackedCodes, weights: NDArray[np.uint32], cut_sum: int) -> Bits:
    """Bit p is set where sum over members of weight * code reaches ``cut_sum``; (ceil(P / 64),) uint64 words.

    codes: (M, P) uint8 or uint16, C-contiguous. weights: (M,) uint32, sum W in 1..2**16. cut_sum: 1..S W, as
    ``weights.cut_sum`` gives it. Members of weight 0 cost a copy: best leave them out before reading them.

    Raises:
        UsageError: a shape, dtype or range that is not as above.
    """
    codes, weights, total = check_stack(codes, weights)
    if not 1 <= cut_sum <= FULL_SCALE[codes.dtype] * total:
        raise UsageError(f"cut_sum {cut_sum} is not in 1..{FULL_SCALE[codes.dtype] * total}: take it from cut_sum()")
    bits = np.empty(math.ceil(codes.shape[1] / 64), np.uint64)
    run(kernels.blend, codes, weights, np.uint32(cut_sum), -(-cut_sum // total), bits)
    return bits


def blend_mask(maps: Sequence[Codes], weights: Sequence[int], threshold: Fraction | float | str) -> Mask:
    """The blend of M maps (H, W), True where sum(w code) >= ceil(t S sum(w)).

    maps: uint8 or uint16 codes (mixed ones are brought to uint16). weights: M whole numbers, not all 0.
    threshold: 0 < t <= 1, taken exactly (a float as its shortest decimal).

    Raises:
        UsageError: maps, weights or a threshold that are not as above.
        DataError: maps of different sizes.
    """
    cut = parse_threshold(threshold)
    codes, full_scale = stack_codes(maps)
    whole = _whole_weights(weights)
    bits = blend_bits(codes, whole, cut_sum(cut, full_scale, int(whole.sum())))
    return bits_mask(bits, Size(*maps[0].shape))


def check_stack(codes: StackedCodes, weights: NDArray[np.uint32]) -> tuple[StackedCodes, NDArray[np.uint32], int]:
    """Codes and weights without the members of weight 0, and the sum of the weights.

    Raises:
        UsageError: as ``blend_bits`` says.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype not in FULL_SCALE or codes.ndim != 2 or not codes.size:
        raise UsageError(
            f"codes are {_describe(codes)}: they must be uint8 or uint16 (members, pixels), see stack_codes"
        )
    if not codes.flags.c_contiguous:
        raise UsageError("codes are not C-contiguous: each member's pixels must lie side by side, see stack_codes")
    if not isinstance(weights, np.ndarray) or weights.dtype != np.uint32 or weights.shape != codes.shape[:1]:
        raise UsageError(f"weights are {_describe(weights)}: they must be uint32 ({codes.shape[0]},), one a member")
    total = int(weights.sum(dtype=np.uint64))
    if not 1 <= total <= MAX_WEIGHT_SUM:
        raise UsageError(f"weights sum to {total}, which is not in 1..{MAX_WEIGHT_SUM}: see integer_weights")
    used = weights > 0
    if not used.all():
        # Exact with them too, but a member that does not count would widen the bounds and make the blend slow.
        codes, weights = codes[used], weights[used]
    return codes, np.ascontiguousarray(weights), total


def _whole_weights(weights: Sequence[int]) -> NDArray[np.uint32]:
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | np.integer) or weight < 0:
            raise UsageError(f"weight {weight!r} is no whole number of 0 or more: see integer_weights for others")
    whole = [int(weight) for weight in weights]
    divisor = math.gcd(*whole) or 1
    whole = [weight // divisor for weight in whole]
    if not 1 <= sum(whole) <= MAX_WEIGHT_SUM:
        raise UsageError(f"weights sum to {sum(whole)}, which is not in 1..{MAX_WEIGHT_SUM}: see integer_weights")
    return np.array(whole, np.uint32)


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
