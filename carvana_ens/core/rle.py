"""Run-length encoding, dialect "carvana", and masks as bit words.

Pixels are numbered from 1, row by row from the top left; a mask is the text ``start length start length ...`` of its
runs, single spaces between, and an empty mask is the empty text. This is what the Carvana Image Masking Challenge
scores (https://www.kaggle.com/c/carvana-image-masking-challenge/overview/evaluation). The first and the last pixel
are encoded like any other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import rle_kernels as kernels
from carvana_ens.core.jit import run
from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Bits, Mask, Size

_scratch = Scratch()

_ROOM = 1 << 16
"""Octets for a text; one of an object is seldom longer."""


def mask_bits(mask: Mask) -> Bits:
    """The mask, bool (H, W), as (ceil(H W / 64),) uint64 words; pixel k in bit k % 64 of word k // 64.

    Raises:
        UsageError: not a bool array of two axes with at least one pixel.
    """
    check_mask(mask)
    bits = np.empty(math.ceil(mask.size / 64), np.uint64)
    run(kernels.pack_mask, flat_octets(mask), bits)
    return bits


def bits_mask(bits: Bits, size: Size) -> Mask:
    """The bool (H, W) mask of ``mask_bits``.

    Raises:
        UsageError: bits are no uint64 words.
        DataError: their number does not fit the size, or a bit past the last pixel is set.
    """
    pixels = pixels_of(size)
    check_bits(bits, pixels)
    octets = bits.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, count=pixels, bitorder="little").view(np.bool_).reshape(size)


def rle_encode(mask: Mask) -> str:
    """The runs of a bool (H, W) mask as ``start length ...``, starts counted from 1; "" for an empty mask.

    Raises:
        UsageError: not a bool array of two axes with at least one pixel.
    """
    check_mask(mask)
    bits = _scratch.array("bits", math.ceil(mask.size / 64), np.uint64)
    run(kernels.pack_mask, flat_octets(mask), bits)
    return _text(bits, mask.size).decode("ascii")


def rle_encode_bits(bits: Bits, pixels: int) -> str:
    """``rle_encode`` of a mask of that many pixels given as bit words.

    Raises:
        UsageError: bits are no uint64 words.
        DataError: their number does not fit the pixels, or a bit past the last pixel is set.
    """
    return rle_encode_bits_bytes(bits, pixels).decode("ascii")


def rle_encode_bits_bytes(bits: Bits, pixels: int) -> bytes:
    """``rle_encode_bits`` as ASCII bytes, ready for a file; raises the same."""
    check_bits(bits, pixels)
    return _text(bits, pixels)


def flat_octets(mask: Mask) -> NDArray[np.uint8]:
    """(P,) the pixels row by row, side by side in memory, as kernels read them."""
    return np.ascontiguousarray(mask).reshape(-1).view(np.uint8)


def _text(bits: Bits, pixels: int) -> bytes:
    text = _scratch.array("text", _ROOM, np.uint8)
    length = run(kernels.write_runs, bits, pixels, text)
    if length < 0:
        text = _scratch.array("text", run(kernels.room_for, bits, pixels), np.uint8)
        length = run(kernels.write_runs, bits, pixels, text)
    return text[:length].tobytes()  # type: ignore[no-any-return]


def rle_decode(text: str, size: Size) -> Mask:
    """The bool (H, W) mask of an RLE text.

    The text holds digits and single spaces only; runs come in increasing order, do not overlap (they may touch) and
    end inside the picture. Anything else is refused, never repaired.

    Raises:
        RLEError: the text breaks these rules; the message names the run and the values.
        UsageError: the size is not two positive numbers.
    """
    flat = np.zeros(pixels_of(size), np.bool_)
    run(kernels.fill_runs, runs_of(text, size), flat)
    return flat.reshape(size)


def rle_area(text: str, size: Size) -> int:
    """Number of object pixels of an RLE text, checked like ``rle_decode``; raises the same."""
    runs = runs_of(text, size)
    return int((runs[:, 1] - runs[:, 0]).sum())


def runs_of(text: str, size: Size) -> NDArray[np.int64]:
    """(R, 2) first and past-last pixel of each run, counted from 0."""
    pixels = pixels_of(size)
    if not isinstance(text, str):
        raise RLEError(f"RLE is no text but {text!r}: an empty mask is the empty text")
    if text == "":
        return np.empty((0, 2), np.int64)
    # Whatever is not ASCII becomes "?", which read_runs refuses at the place where it stands.
    octets = np.frombuffer(bytearray(text.encode("ascii", "replace")), np.uint8)
    runs = np.empty((len(text) // 4 + 1, 2), np.int64)
    found, count, at = run(kernels.read_runs, octets, pixels, runs)
    if found != kernels.FINE:
        raise RLEError(_explain(text, size, int(found), int(count), int(at)))
    return runs[:count]


def _explain(text: str, size: Size, found: int, count: int, at: int) -> str:
    number = count + 1
    if found == kernels.BAD_CHARACTER:
        return f"RLE character {at + 1} is {text[at]!r} (run {number}): it may hold only digits and single spaces"
    if found == kernels.BAD_SPACE:
        where = "starts" if at == 0 else "ends" if at == len(text) else ""
        if where:
            return f"RLE {where} with a space: write single spaces between numbers only"
        return f"RLE has two spaces in a row at character {at + 1} (run {number}): write single spaces between numbers"
    # The tokens before the fault are digits, but they may be very many or very long.
    numbers = [_short(token) for token in text[:at].rsplit(" ", 4)[-4:]]
    if found == kernels.ODD:
        return f"RLE has an odd count of numbers: run {number} starts at {numbers[-1]} but has no length"
    if found == kernels.START_ZERO:
        return f"RLE run {number} starts at 0: pixels are counted from 1"
    start, length = numbers[-2:]
    if found == kernels.LENGTH_ZERO:
        return f"RLE run {number} (start {start}) has length 0: leave empty runs out"
    if found == kernels.OVERLAP:
        end = int(numbers[-4]) + int(numbers[-3]) - 1
        return (
            f"RLE run {number} starts at {start} but run {count} ends at {end}: "
            "runs must not overlap and must come in increasing order"
        )
    height, width = size
    return (
        f"RLE run {number} (start {start}, length {length}) ends past the last of the {height * width} pixels of "
        f"{height}x{width}: is it the RLE of another picture or size?"
    )


def _short(token: str) -> str:
    token = token.lstrip("0") or "0"
    return token if len(token) <= 18 else f"{token[:15]}... ({len(token)} digits)"


def pixels_of(size: Size) -> int:
    height, width = size
    if height < 1 or width < 1 or height * width >= kernels.MAX_VALUE:
        raise UsageError(f"size {height}x{width} is no picture's: give height and width of at least 1")
    return height * width


def check_mask(mask: Mask) -> None:
    """Raises UsageError unless the mask is a bool array (H, W) with at least one pixel."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise UsageError(f"a mask is a bool array (H, W) with at least one pixel, got {got}: for example codes >= 128")


def check_bits(bits: Bits, pixels: int) -> None:
    """Raises UsageError unless bits are contiguous uint64 words, DataError unless they hold that many pixels."""
    if not isinstance(bits, np.ndarray) or bits.dtype != np.uint64 or bits.ndim != 1 or not bits.flags.c_contiguous:
        got = f"{bits.dtype} {bits.shape}" if isinstance(bits, np.ndarray) else type(bits).__name__
        raise UsageError(f"bits are contiguous uint64 words (ceil(pixels / 64),), got {got}: see mask_bits")
    if pixels < 1 or bits.size != math.ceil(pixels / 64):
        raise DataError(f"{bits.size} bit words do not hold {pixels} pixels: it takes {math.ceil(pixels / 64)}")
    if pixels % 64 and int(bits[-1]) >> (pixels % 64):
        raise DataError(f"bits past the last of {pixels} pixels are set: the words belong to another size")
