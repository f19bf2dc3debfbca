"""Run lengths as COCO has them, both ways, equal to pycocotools.

Pixels are counted column by column from the top left; the lengths of the runs stand one after the other, of background,
object, background, ..., and the first is 0 where the first pixel is the object's. Compressed, each count from the
fourth on is written as its difference to the count two before, in pieces of five bits, low ones first, a piece as the
character ``chr(48 + piece)``, or ``chr(80 + piece)`` where the number goes on; bit 4 of the last piece is the sign.

After ``rleEncode``, ``rleToString`` and ``rleFrString`` of pycocotools' ``maskApi.c`` (cocodataset/cocoapi,
BSD-2-Clause).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import rle_kernels as kernels
from carvana_ens.core.jit import run
from carvana_ens.core.rle import check_mask, flat_octets
from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import RLEError
from carvana_ens.types import Mask, Size

_scratch = Scratch()


def coco_counts(mask: Mask) -> list[int]:
    """The uncompressed counts of a bool (H, W) mask; their sum is H W.

    Raises:
        UsageError: not a bool array of two axes with at least one pixel.
    """
    return _counts(mask).tolist()  # type: ignore[no-any-return]


def coco_encode(mask: Mask) -> dict[str, Any]:
    """``{"size": [H, W], "counts": bytes}`` of a bool (H, W) mask, compressed: what pycocotools' ``encode`` gives.

    JSON has no bytes: decode the counts as ASCII for it. The mask may lie row by row or column by column.

    Raises:
        UsageError: not a bool array of two axes with at least one pixel.
    """
    counts = _counts(mask)
    characters = -(-(mask.size.bit_length() + 1) // 5)  # of a number between -H W and H W
    text = _scratch.array("text", counts.size * characters, np.uint8)
    return {"size": list(mask.shape), "counts": text[: run(kernels.write_counts, counts, text)].tobytes()}


def coco_decode(rle: Mapping[str, Any]) -> Mask:
    """The bool (H, W) mask of ``{"size": [H, W], "counts": ...}``.

    Counts are compressed, bytes or str, or a list of int. Runs may be of length 0.

    Raises:
        RLEError: no size, counts of another type, a text that was damaged, a negative count, or counts that do not sum
            to H W. Where they sum to less, pycocotools fills up with what lies in memory.
    """
    if not isinstance(rle, Mapping):
        raise RLEError(f'a COCO encoding is {{"size": [H, W], "counts": ...}}, got {type(rle).__name__}')
    size, counts = _size(rle.get("size")), rle.get("counts")
    if isinstance(counts, str):
        # Every octet of what is not ASCII is refused where it stands, and before it octets are characters.
        counts = counts.encode("utf-8", "surrogatepass")
    runs = _read(counts, size) if isinstance(counts, bytes) else _checked(counts, size)
    mask = np.zeros(size, np.bool_)
    run(kernels.fill_columns, runs, mask.view(np.uint8))
    return mask


def _counts(mask: Mask) -> NDArray[np.int64]:
    """(R,) counts, in memory that the next mask will use."""
    check_mask(mask)
    height, width = mask.shape
    if mask.flags.f_contiguous:  # in memory it is one long column
        mask, height, width = mask.T, mask.size, 1
    bits = _scratch.array("bits", -(-mask.size // 64), np.uint64)
    run(kernels.pack_mask, flat_octets(mask), bits)
    edges = _scratch.array("edges", bits.size, np.uint64)
    tally = _scratch.array("tally", width, np.int64)
    found = run(kernels.column_edges, bits, height, width, edges, tally)
    counts = _scratch.array("counts", found + 1, np.int64)
    run(kernels.column_counts, edges, height, width, tally, counts)
    return counts  # type: ignore[no-any-return]


def _size(value: Any) -> Size:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(type(side) is int and side > 0 for side in value)
        or value[0] * value[1] >= kernels.MAX_VALUE
    ):
        raise RLEError(f"COCO size is {value!r}: it must be [height, width] in pixels, each at least 1")
    return Size(*value)


def _checked(counts: Any, size: Size) -> NDArray[np.int64]:
    if not isinstance(counts, list):
        raise RLEError(
            f"COCO counts are of type {type(counts).__name__}: give a list of run lengths, or the compressed text"
        )
    for index, count in enumerate(counts):
        if type(count) is not int or count < 0:
            raise RLEError(_no_length(index, count))
    total = sum(counts)
    if total != size.height * size.width:
        raise RLEError(_wrong_sum(total, len(counts), size))
    return np.array(counts, np.int64)


def _read(text: bytes, size: Size) -> NDArray[np.int64]:
    """(R,) counts of a compressed text, in memory that the next text will use."""
    counts = _scratch.array("read", len(text), np.int64)
    octets = np.frombuffer(bytearray(text), np.uint8)
    found, number, detail = run(kernels.read_counts, octets, size.height * size.width, counts)
    if found != kernels.FINE:
        raise RLEError(_explain(text, size, int(found), int(number), int(detail)))
    return counts[:number]  # type: ignore[no-any-return]


def _explain(text: bytes, size: Size, found: int, number: int, detail: int) -> str:
    if found == kernels.NEGATIVE:
        return _no_length(number, detail)
    if found == kernels.WRONG_SUM:
        return _wrong_sum(detail, number, size)
    if found == kernels.CUT_OFF:
        return f"COCO counts end in the middle of a number (count {number + 1}): was the text cut off?"
    if found == kernels.TOO_LONG:
        return (
            f"COCO counts are no COCO text: count {number + 1} goes on after {kernels.COUNT_CHARACTERS} characters, "
            "more than any picture has: is the text damaged?"
        )
    character = text[detail:].decode("utf-8", "replace")[0]
    return (
        f"COCO counts are no COCO text: character {character!r} at place {detail + 1} (count {number + 1}) is not "
        "between '0' and 'o': is the text damaged, or of another dialect?"
    )


def _no_length(index: int, count: Any) -> str:
    return f"COCO count {index + 1} is {count!r}: run lengths are whole numbers (int) from 0"


def _wrong_sum(total: int, number: int, size: Size) -> str:
    return (
        f"COCO counts sum to {total} pixels by count {number}, a picture of {size} has {size.height * size.width}: "
        "are they whole, and of this picture?"
    )
