"""Packed maps: all of a map, ordered so that an exact blend reads only a small part of it.

A map is cut into halves of 32 pixels, row-major. A half is *low* if all its codes are at most 12/255 of the full scale,
*high* if all are at least 243/255, else *hot*; a low or high one is *exact* if all its codes are 0, or all the full
scale, else *cold*. The *hot part* of a map holds three bit planes that say which half is what, and the codes of the hot
halves; the *cold part* holds the codes of the cold ones. Together they are the map, bit for bit.

Codes of cold halves are kept as their distances from their end of the scale, in digits of 4 bits: one, or three at
uint16. A half takes 16 octets for each digit, the lowest first: in octet k that of code 2 k and, times 16, of 2 k + 1.

A blend cut at a threshold between those bounds has every half that is low in all members, or high in all, decided by
the planes. Of the others, which lie along the object's edge, the hot part gives nearly every pixel; the few that hang
on a cold half are then read from the cold part. With B = 12/255 S: a low half of every member has sum <= W B, a high
one sum >= W (S - B), so the road is open for W B < cut_sum <= W (S - B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import packed_blend_kernels as blending
from carvana_ens.core import packed_kernels as kernels
from carvana_ens.core.blend import FULL_SCALE
from carvana_ens.core.jit import run
from carvana_ens.core.lz4 import SPARE
from carvana_ens.core.rle import rle_encode_bits_bytes
from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import DataError
from carvana_ens.types import Bits, Codes

HALF = 32
"""Pixels of a half."""
STRIPE, STRIPE_ENTRY = blending.STRIPE, blending.STRIPE_ENTRY
"""Cold halves of a stripe, and octets for it in the table of a cold part; see ``HotParts``."""

_LOW_CODE = 12
_STEP = {255: 1, 65535: 257}

_scratch = Scratch()
_TEXT = 1 << 16
"""Octets for run lengths; those of an object seldom take more."""
_NO_TEXT = np.empty(0, np.uint8)

ColdHalves = Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]
"""(member, (n,) which of its cold halves, increasing) -> (n, ``cold_octets``) octets."""


def halves_of(pixels: int) -> int:
    """Number of halves of a picture; an even number, the last ones may reach past its end."""
    return 2 * math.ceil(pixels / 64)


def cold_octets(itemsize: int) -> int:
    """Octets of a cold half, for codes of 1 or 2 octets."""
    return kernels.PAIRS if itemsize == 1 else blending.COLD_OCTETS


def _bounds(full_scale: int) -> tuple[int, int]:
    low = _LOW_CODE * _STEP[full_scale]
    return low, full_scale - low


def can_blend(cut_sum: int, total: int, full_scale: int) -> bool:
    """Whether the hot parts can give a blend cut at ``cut_sum``, for weights of that total."""
    low, high = _bounds(full_scale)
    return total * low < cut_sum <= total * high


def pack_map(codes: Codes) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]]:
    """(planes, hot literals, cold halves) of a map; valid until this thread packs another.

    codes: (h, w) uint8 or uint16. planes: uint64, written in short. hot literals: octets, 32 codes a half; cold halves:
    octets, ``cold_octets`` a half.
    """
    full_scale = FULL_SCALE[codes.dtype]
    halves = halves_of(codes.size)
    name = codes.dtype.name
    flat = _scratch.array(f"{name} codes", HALF * halves, codes.dtype)
    flat[: codes.size] = codes.reshape(-1)
    flat[codes.size :] = flat[codes.size - 1]
    planes, size = _planes(1, halves)[0], cold_octets(codes.itemsize)
    hot = _scratch.array(f"{name} hot", flat.size, flat.dtype)
    cold = _scratch.array("cold", halves * size, np.uint8)
    hots, colds = run(kernels.split, flat, *_bounds(full_scale), full_scale, planes, hot, cold)
    words = _scratch.array("words", planes.size + 3 * math.ceil(planes.shape[1] / 64), np.uint64)
    written = run(kernels.write_planes, planes, words)
    return words[:written], hot[: HALF * hots].view(np.uint8), cold[: size * colds]


def unpack_map(words: NDArray[np.uint64], hot: Codes, cold: NDArray[np.uint8], out: Codes) -> None:
    """Writes the codes that ``pack_map`` was given into out, (h, w).

    Raises:
        DataError: the parts do not belong to a map of that size.
    """
    halves = halves_of(out.size)
    planes = _planes(1, halves)[0]
    hots, colds = run(kernels.read_planes, words, 0, words.size, halves, planes)
    if hots < 0 or hot.size != HALF * hots or cold.size != cold_octets(out.itemsize) * colds:
        raise DataError(f"the parts of a packed map do not fit {out.shape[0]}x{out.shape[1]} pixels")
    whole = out.size == HALF * halves and out.flags.c_contiguous
    flat = out.reshape(-1) if whole else _scratch.array(f"{out.dtype.name} codes", HALF * halves, out.dtype)
    run(kernels.join, planes, halves, FULL_SCALE[out.dtype], hot, cold, flat)
    if not whole:
        out[:] = flat[: out.size].reshape(out.shape)


class HotParts(NamedTuple):
    """The hot parts of one picture in M files.

    handles: (M,) int64, of open files, or -1 for what is read elsewhere. places: (M,) int64, of the parts in the files.
    begins: (M + 1,) int64, where they begin when they lie one after the other, and where the last ends. crcs: (M,)
    uint32, crc32c. starts: (M + 1,) int64, the same as begins in words once they are decoded. words: (M,) int64, how
    many words planes take; hot literals are the rest. cold_places: (M,) int64, of the cold parts in the files. colds:
    (M,) int64, numbers of cold halves.

    A hot part is the size of its words (uint32), these as an LZ4 block, and the table of the cold part: size and crc32c
    (both uint32) of each of its stripes. The cold part is the stripes: LZ4 blocks of ``STRIPE`` halves each.
    """

    handles: NDArray[np.int64]
    places: NDArray[np.int64]
    begins: NDArray[np.int64]
    crcs: NDArray[np.uint32]
    starts: NDArray[np.int64]
    words: NDArray[np.int64]
    cold_places: NDArray[np.int64]
    colds: NDArray[np.int64]


Stored = Callable[[int], bytes]
"""member -> its hot part as the file has it, read and checked."""


class HotPartError(DataError):
    """A hot part that does not fit its picture; ``member``: the number of the map."""

    def __init__(self, member: int, pixels: int) -> None:
        super().__init__(f"the hot part of map {member} does not fit {pixels} pixels")
        self.member = member


class PackedBlend:
    """An exact blend of M packed maps, cut at a threshold, for many pictures; may be used from several threads.

    weights: (M,) uint32. dtypes: of each member. cut_sum, full_scale: as for ``blend_bits``, in the widest member's
    scale; ``can_blend`` must hold.
    """

    def __init__(
        self, weights: NDArray[np.uint32], dtypes: Sequence[np.dtype[Any]], cut_sum: int, full_scale: int
    ) -> None:
        steps = [full_scale // FULL_SCALE[dtype] for dtype in dtypes]
        self._weights, self._full_scale, self._cut_sum = weights, full_scale, cut_sum
        self._factors = weights * np.array(steps, np.uint32)
        self._wide = np.array([dtype.itemsize == 2 for dtype in dtypes])
        low, high = _bounds(full_scale)
        self._scalars = tuple(np.uint32(value) for value in (low, high, full_scale, cut_sum))

    def bits(self, parts: HotParts, pixels: int, hot: Stored, cold: ColdHalves) -> Bits:
        """The mask of one picture as bit words; valid until this thread blends another.

        parts: of the picture. hot, cold: give what cannot be read here: hot parts, and the cold halves that the bits
        hang on.

        Raises:
            HotPartError: a hot part that does not decode, or does not fit the picture.
        """
        return self._blend(parts, pixels, hot, cold, _NO_TEXT)[0]

    def rle(self, parts: HotParts, pixels: int, hot: Stored, cold: ColdHalves) -> bytes:
        """The run lengths of the mask that ``bits`` gives; raises the same."""
        text = _scratch.array("text", _TEXT, np.uint8)
        bits, length = self._blend(parts, pixels, hot, cold, text)
        if length < 0:
            return rle_encode_bits_bytes(bits, pixels)
        return text[:length].tobytes()  # type: ignore[no-any-return]

    def _blend(
        self, parts: HotParts, pixels: int, hot: Stored, cold: ColdHalves, text: NDArray[np.uint8]
    ) -> tuple[Bits, int]:
        """The bit words, and how much of text the run lengths take, -1 where they are not there."""
        halves = halves_of(pixels)
        planes = _planes(len(parts.words), halves)
        room = 64 * planes.shape[2]
        bits = _scratch.array("bits", room, np.uint32)
        mask: Bits = bits[:halves].view(np.uint64)
        unclear = _scratch.array("unclear", room, np.int64)
        stored = _scratch.array("stored", int(parts.begins[-1]) + SPARE, np.uint8)
        words = _scratch.array("hot parts", int(parts.starts[-1]) + SPARE // 8, np.uint64)
        handles = parts.handles
        while True:
            fault, missing, count, length = run(
                blending.blend_files,
                *(handles, parts.places, parts.begins, parts.crcs, parts.cold_places, parts.colds),
                *(stored, words, parts.starts, parts.words),
                *(self._wide, self._weights, self._factors, *self._scalars),
                *(halves, pixels, planes, bits, unclear, text),
            )
            if not missing:
                break
            stored[parts.begins[fault] : parts.begins[fault + 1]] = np.frombuffer(hot(fault), np.uint8)
            handles = handles.copy()
            handles[fault] = blending.GIVEN
        if fault >= 0:
            raise HotPartError(fault, pixels)
        if count:
            self._settle(words, parts.starts[:-1] + parts.words, planes, unclear[:count], cold, bits)
        if length < 0 and pixels % 64:
            mask[-1] &= np.uint64((1 << pixels % 64) - 1)
        return mask, length

    def _settle(
        self,
        buffer: NDArray[np.uint64],
        literals: NDArray[np.int64],
        planes: NDArray[np.uint64],
        unclear: NDArray[np.int64],
        cold: ColdHalves,
        bits: NDArray[np.uint32],
    ) -> None:
        """Sets the bits of the halves that the kernel left open."""
        shape = (unclear.size, literals.size)
        kinds = np.empty(shape, np.uint8)
        places = np.empty(shape, np.int64)
        run(blending.find_halves, planes, unclear, kinds, places)
        halves = np.empty((*shape, blending.COLD_OCTETS), np.uint8)
        which = kinds >= blending.LOW_COLD
        for member in np.flatnonzero(which.any(0)).tolist():
            rows, size = which[:, member], cold_octets(2 if self._wide[member] else 1)
            halves[rows, member, :size] = cold(member, places[rows, member])
        members = (self._wide, self._weights, self._factors, *self._scalars[2:])
        run(blending.settle, buffer, literals, *members, unclear, kinds, places, halves, bits)


def _planes(members: int, halves: int) -> NDArray[np.uint64]:
    words = math.ceil(halves / 64)
    return _scratch.array("planes", members * 3 * words, np.uint64).reshape(members, 3, words)  # type: ignore[no-any-return]
