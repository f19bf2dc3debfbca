"""diff: what two locks, or two submissions, do not have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.core.rle_dialects import CARVANA, Dialect, find_dialect
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.rle_csv import SUFFIXES, rle_rows
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.lock_file import Difference, Sides, lock_differences, read_lock
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Bits, Size, Track, untracked

_BATCH = 16
"""Images a task: most rows are equal, and comparing two texts takes less than handing them over."""


@dataclass(frozen=True)
class ImageDifference:
    """Two masks of an image. pixels: that only one of them has. dice: of the two. areas: of each, in pixels."""

    image_id: str
    pixels: int
    dice: float
    areas: tuple[int, int]


@dataclass(frozen=True)
class MaskDifferences:
    """Two submissions. images: that both have. only: ids that one has alone, in its order.

    decoded: rows of which the texts differed. pixels: in which masks differ, in all. dice: of the two masks of an
    image, the mean over images; None where they have none in common. differing: images whose masks differ, those of the
    least Dice first.
    """

    images: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    decoded: int
    pixels: int
    dice: float | None
    differing: tuple[ImageDifference, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same images with the same masks."""
        return not (self.differing or any(self.only))


def is_lock(path: Path) -> bool:
    """Whether a file is compared as a lock: by its suffix.

    Raises:
        UsageError: it is neither named as a lock nor as a submission.
    """
    name = path.name.lower()
    if not name.endswith((".json", *SUFFIXES)):
        raise UsageError(f"{path} is neither a lock (.json) nor a submission ({', '.join(SUFFIXES)})")
    return name.endswith(".json")


def diff_locks(one: Path, other: Path) -> list[Difference]:
    """Everything in which two locks differ.

    Raises:
        ProjectError: one of them is no lock.
    """
    return lock_differences(read_lock(one), read_lock(other), Sides(f"in {one}", f"in {other}"))


def diff_masks(
    one: Path,
    other: Path,
    *,
    images: Path | None = None,
    size: Size | None = None,
    dialects: tuple[str, str] = (CARVANA, CARVANA),
    threads: int | None = None,
    track: Track = untracked,
) -> MaskDifferences:
    """Compares two submissions pixel by pixel; rows of one dialect and one text are not decoded.

    images, size: how large the images are, by their photos or all alike; only asked for where rows differ. Rows are
    taken as the files have them, so that memory grows only with how far their orders are apart.

    Raises:
        UsageError: another suffix, an unknown dialect, or masks of no known size.
        DataError: a file that is no table of run lengths, an image twice, or a photo that is not there.
        RLEError: a row that is not valid RLE of its image's size; names file and image.
    """
    kinds = find_dialect(dialects[0]), find_dialect(dialects[1])
    photos = None if images is None else ImageFolder(images)
    pairs = _Pairs(one, other)

    def compared(pair: tuple[str, str, str]) -> ImageDifference | None:
        image_id, *texts = pair
        if texts[0] == texts[1] and kinds[0] is kinds[1]:
            return None
        if size is None and photos is None:
            raise UsageError(
                f"the rows of {image_id} in {one} and {other} differ: to compare masks give --images FOLDER or "
                f"--size HxW"
            )
        own = size if photos is None else photos.size(image_id)
        assert own is not None  # one of the two was given
        a, b = (
            _bits(path, kind, image_id, text, own) for path, kind, text in zip((one, other), kinds, texts, strict=True)
        )
        both, in_a, in_b = counts(a, b)
        return ImageDifference(image_id, in_a + in_b - 2 * both, dice_from_counts(both, in_a, in_b), (in_a, in_b))

    found = []
    total, decoded = 0, 0
    for result in track(ordered_map(compared, pairs, threads or default_threads(), _BATCH), 0, "diff"):
        total += 1
        if result is not None:
            decoded += 1
            if result.pixels:
                found.append(result)
    found.sort(key=lambda image: (image.dice, -image.pixels, image.image_id))
    dice = (total - len(found) + math.fsum(image.dice for image in found)) / total if total else None
    return MaskDifferences(total, pairs.alone(), decoded, sum(image.pixels for image in found), dice, tuple(found))


def _bits(path: Path, dialect: Dialect, image_id: str, text: str, size: Size) -> Bits:
    try:
        return mask_bits(dialect.decode(text, size))
    except RLEError as error:
        raise RLEError(f"{path}, image {image_id} of {size}: {error}") from error


class _Pairs:
    """(image id, its text in one file, its text in the other), as both files are read side by side."""

    def __init__(self, one: Path, other: Path) -> None:
        self._paths = (one, other)
        self._waiting: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        met: set[str] = set()
        for rows in zip_longest(*map(rle_rows, self._paths)):
            for side, row in enumerate(rows):
                if row is None:
                    continue
                image_id, text = row
                mine, theirs = self._waiting[side], self._waiting[1 - side]
                if image_id in met or image_id in mine:
                    raise DataError(f"{self._paths[side]} has image {image_id!r} twice: keep one of its rows")
                if image_id in theirs:
                    met.add(image_id)
                    before = theirs.pop(image_id)
                    yield (image_id, before, text) if side else (image_id, text, before)
                else:
                    mine[image_id] = text

    def alone(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of which the other file has no row, when all has been read."""
        one, other = self._waiting
        return tuple(one), tuple(other)
