"""The submission: one CSV row per photo, its name and its mask as run-length encoding.

The text is a function of the rows alone, and the ``.gz`` a function of the rows and the compressor's version: its
header carries neither time nor file name. Rows stream both ways, so a submission of 100,000 photos (close to a
gigabyte of text) needs no more memory than one of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from isal import isal_zlib

from carvana_ens.core.rle_dialects import CARVANA, Dialect, find_dialect
from carvana_ens.data.ids import check_id
from carvana_ens.data.rle_csv import read_rle_csv, rle_rows
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.files import remove_left_behind, replacing
from carvana_ens.types import Mask, Size

HEADER = b"img,rle_mask\n"
"""The header that Kaggle's Carvana challenge set, with our line end."""

SUFFIXES = (".csv", ".csv.gz")

_COMPRESSION_LEVEL = 2
"""Of ISA-L's 0 to 3: as fast as the lower ones on run-length text; 20 times zlib's level 6 for 3 % more bytes."""

_GZIP = 16 + isal_zlib.MAX_WBITS


def write_submission(path: Path, rows: Iterable[tuple[str, bytes]], dialect: str = CARVANA) -> int:
    """Writes a submission and returns the number of its rows.

    Args:
        path: ``.csv``, or ``.csv.gz`` for one gzip stream. A stop, or an error in ``rows``, leaves the old file.
        rows: image id and RLE as ASCII (``b"1 3 10 5"``, empty for an empty mask), in the order of the file. The
            name of a row is ``<id>.jpg``.
        dialect: that the RLEs are of; see ``core.rle_dialects``.

    Raises:
        UsageError: another suffix, or an unknown dialect.
        DataError: an id that comes twice or cannot be one, an RLE of other characters, or no row at all.
        CarvanaEnsError: the file cannot be written.
    """
    check_suffix(path)
    written = find_dialect(dialect)
    seen: set[str] = set()
    remove_left_behind(path)  # of 100,000 photos it is a gigabyte
    with replacing(path) as temporary, _opened(temporary, compressed=path.name.endswith(".gz")) as write:
        write(HEADER)
        for image_id, rle in rows:
            if image_id in seen:
                raise DataError(f"{path}: image id {image_id!r} comes twice; a submission has one row per photo")
            seen.add(image_id)
            write(submission_row(image_id, rle, written))
        if not seen:
            raise DataError(f"{path}: there is no row to write; a submission needs at least one photo")
    return len(seen)


def check_suffix(path: Path) -> None:
    """Refuses a submission path before any work is done for it.

    Raises:
        UsageError: the name ends neither in ``.csv`` nor in ``.csv.gz``.
    """
    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"submission {str(path)!r} is neither .csv nor .csv.gz: name it so")


def compare_submission(path: Path, masks: Iterable[tuple[str, Mask]], dialect: str = CARVANA) -> int:
    """Decodes a submission, compares each row with its mask, and returns the number of rows.

    Args:
        path: what :func:`write_submission` wrote.
        masks: image id and mask (H, W) bool, in the order of the file.
        dialect: that the file was written in.

    Raises:
        DataError: the first row that is missing, cannot be read or decoded, or decodes to another mask; or a row more
            than there are masks.
        UsageError: a suffix that no submission has, or an unknown dialect.
    """
    written = find_dialect(dialect)
    number = 0
    rows = rle_rows(path)
    for number, (image_id, mask) in enumerate(masks, start=1):
        row = next(rows, None)
        if row is None:
            raise DataError(f"{path} ends before image {image_id!r} (row {number}): write it again")
        if row[0] != image_id:
            raise DataError(f"row {number} of {path} is image {row[0]!r} where {image_id!r} is due: write it again")
        different = np.flatnonzero(_decoded(path, written, *row, Size(*mask.shape)) != mask)
        if different.size:
            raise DataError(
                f"image {image_id!r} in {path} differs from its mask in {different.size} pixels, first at row "
                f"{different[0] // mask.shape[1]}, column {different[0] % mask.shape[1]}: write it again"
            )
    extra = next(rows, None)
    if extra is not None:
        raise DataError(f"{path} has a row too many after {number}, image {extra[0]!r}: write it again")
    return number


def sample_names(path: Path) -> tuple[str, ...]:
    """The image ids of a sample submission (``.csv``, ``.csv.gz`` or ``.zip``), in the order of the file.

    Raises:
        UsageError: another suffix.
        DataError: a file that is no table of ``img,rle_mask``, has no row, or has an image twice.
    """
    return tuple(read_rle_csv(path))


def check_names(ids: Iterable[str], sample_ids: Iterable[str]) -> None:
    """Checks that exactly the sample's images are there, whatever their order.

    Raises:
        DataError: naming up to three missing and three extra ids.
    """
    have = dict.fromkeys(ids)
    want = dict.fromkeys(sample_ids)
    missing = [image_id for image_id in want if image_id not in have]
    extra = [image_id for image_id in have if image_id not in want]
    faults = [
        f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for found, what in ((missing, "missing"), (extra, "not in the sample"))
        if found
    ]
    if faults:
        raise DataError(
            f"the {len(have)} images are not the {len(want)} of the sample submission: {', '.join(faults)}; "
            f"use the photos that the sample names"
        )


def _decoded(path: Path, dialect: Dialect, image_id: str, rle: str, size: Size) -> Mask:
    try:
        return dialect.decode(rle, size)
    except RLEError as error:
        raise RLEError(f"image {image_id!r} in {path}, for a mask of {size}: {error}") from error


@contextmanager
def _opened(path: Path, *, compressed: bool) -> Iterator[Callable[[bytes], object]]:
    """What takes the text, piece by piece."""
    with open(path, "xb") as file:
        if not compressed:
            yield file.write
            return
        # ISA-L's header holds neither time nor name: equal pieces give equal bytes
        engine = isal_zlib.compressobj(_COMPRESSION_LEVEL, isal_zlib.DEFLATED, _GZIP)
        yield lambda text: file.write(engine.compress(text))
        file.write(engine.flush())


def submission_row(image_id: str, rle: bytes, dialect: Dialect) -> bytes:
    """The line of one photo.

    Raises:
        DataError: an id that cannot be one, or an RLE of other characters than the dialect has.
    """
    name = f"{check_id(image_id)}.jpg"
    if rle.translate(None, dialect.characters):
        raise DataError(
            f"the RLE of image {image_id!r} has other characters than dialect {dialect.name} has: {rle[:40]!r}"
        )
    if "," in name or '"' in name:
        name = '"' + name.replace('"', '""') + '"'
    return b"%b,%b\n" % (name.encode(), rle)
