r"""Run-length encodings as others write them, by name.

| name | pixels are counted | text of the runs | empty mask |
|---|---|---|---|
| carvana | row by row, from 1 | ``start length start length ...`` | empty text |
| column-major | column by column, from 1 | the same | empty text |
| relative | column by column | ``gap length gap length ...``, gap: background since the last run | ``-1`` |
| coco-uncompressed | column by column | ``background object background ...``, all of the picture | its pixels |
| coco-compressed | column by column | the same in pycocotools' five-bit characters | the same |

column-major is that of Kaggle's Data Science Bowl 2018 and TGS Salt. relative is that of SIIM-ACR Pneumothorax: its
``rle2mask`` fills (width, height), so that the picture is the transpose
(https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation/overview/evaluation); its own encoder drops a run that
reaches the last pixel, this one does not. The COCO forms are those of ``coco_counts``; JSON has uncompressed counts as
a list, a text has them with single spaces between.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from carvana_ens.core.coco_counts import coco_counts, coco_decode, coco_encode
from carvana_ens.core.rle import check_mask, pixels_of, rle_decode, rle_encode
from carvana_ens.errors import RLEError, UsageError
from carvana_ens.types import Mask, Size

CARVANA = "carvana"
_EMPTY = "-1"
_NUMBERS = re.compile(r"[0-9]+(?: [0-9]+)*")
_LONGEST = 17
"""Digits of a number that is read; no picture has so many pixels."""


@dataclass(frozen=True)
class Dialect:
    """encode: the text of a bool (H, W) mask. decode: the mask of a text, strictly. characters: that a text may hold.

    encode raises UsageError for what is no mask; decode raises RLEError for a text that breaks the rules, and
    UsageError for a size that is none.
    """

    name: str
    encode: Callable[[Mask], str]
    decode: Callable[[str, Size], Mask]
    characters: bytes = b"0123456789 "


def find_dialect(name: str) -> Dialect:
    """A dialect by its name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in DIALECTS:
        near = difflib.get_close_matches(name, DIALECTS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DIALECTS)}"
        raise UsageError(f"RLE dialect {name!r} is unknown: {hint}")
    return DIALECTS[name]


def _columns_encode(mask: Mask) -> str:
    check_mask(mask)
    return rle_encode(mask.T)


def _columns_decode(text: str, size: Size) -> Mask:
    height, width = size
    try:
        return rle_decode(text, Size(width, height)).T
    except RLEError as error:
        raise RLEError(f"{error} (column by column, so of {width} columns of {height} pixels)") from error


def _relative_encode(mask: Mask) -> str:
    counts = coco_counts(mask)
    if len(counts) == 1:
        return _EMPTY
    return " ".join(map(str, counts[: len(counts) // 2 * 2]))  # without the background at the end


def _relative_decode(text: str, size: Size) -> Mask:
    pixels = pixels_of(size)
    if text == _EMPTY:
        return coco_decode({"size": list(size), "counts": [pixels]})
    numbers = _numbers(text, f"an empty mask is {_EMPTY}")
    if len(numbers) % 2:
        raise RLEError(f"RLE has an odd count of numbers: run {len(numbers) // 2 + 1} has no length")
    for index in range(1, len(numbers), 2):
        if numbers[index] == 0:
            raise RLEError(f"RLE run {index // 2 + 1} has length 0: leave empty runs out")
    total = sum(numbers)
    if total > pixels:
        raise RLEError(
            f"RLE gaps and lengths sum to {total}, more than the {pixels} pixels of {size[0]}x{size[1]}: is it of "
            f"another picture, or of dialect column-major?"
        )
    return coco_decode({"size": list(size), "counts": [*numbers, pixels - total]})


def _counts_encode(mask: Mask) -> str:
    return " ".join(map(str, coco_counts(mask)))


def _counts_decode(text: str, size: Size) -> Mask:
    pixels_of(size)
    return coco_decode({"size": list(size), "counts": _numbers(text, "an empty mask is the number of its pixels")})


def _compressed_encode(mask: Mask) -> str:
    text: bytes = coco_encode(mask)["counts"]
    return text.decode("ascii")


def _compressed_decode(text: str, size: Size) -> Mask:
    pixels_of(size)
    if not isinstance(text, str):
        raise RLEError(f"RLE is no text but {text!r}")
    return coco_decode({"size": list(size), "counts": text})


def _numbers(text: str, empty: str) -> list[int]:
    if not isinstance(text, str):
        raise RLEError(f"RLE is no text but {text!r}: {empty}")
    if not text:
        raise RLEError(f"RLE is an empty text: {empty}")
    if not _NUMBERS.fullmatch(text):
        wrong = re.search(r"[^0-9 ]|^ | $|  ", text)
        where = f": {wrong[0]!r} at character {wrong.start() + 1}" if wrong else ""
        raise RLEError(f"RLE may hold only digits and single spaces between numbers{where}")
    words = text.split(" ")
    long = next((word for word in words if len(word) > _LONGEST), None)
    if long is not None:
        raise RLEError(f"RLE number {long[:15]}... has {len(long)} digits, more than any picture has pixels")
    return list(map(int, words))


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(CARVANA, rle_encode, rle_decode),
        Dialect("column-major", _columns_encode, _columns_decode),
        Dialect("relative", _relative_encode, _relative_decode, b"0123456789 -"),
        Dialect("coco-uncompressed", _counts_encode, _counts_decode),
        Dialect("coco-compressed", _compressed_encode, _compressed_decode, bytes(range(48, 112))),
    )
}
"""All dialects by name."""
