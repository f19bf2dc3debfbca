"""The submission: one CSV row per photo, its name and its mask as run-length encoding.

The text is a function of the rows alone, and the ``.gz`` a function of the rows and the compressor's version: its
header carries neither time nor file name. Rows stream both ways, so a submission of 100,000 photos (close to a
gigabyte of text) needs no more memory than one of ten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import isal_zlib

from carvana_ens.core.rle import mask_bits
from carvana_ens.core.rle_dialects import CARVANA, Dialect, find_dialect
from carvana_ens.data.ids import check_id
from carvana_ens.data.rle_csv import HEADERS, rle_rows, row_id, table_rows
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.files import remove_left_behind, replacing
from carvana_ens.types import Bits, Size

HEADER = b"img,rle_mask\n"
"""The header that Kaggle's Carvana challenge set, with our line end."""

_HEADERS = {"column-major": "id,rle_mask", "relative": "ImageId,EncodedPixels"}
"""By dialect, where it is not Carvana's: those of TGS Salt and of SIIM-ACR Pneumothorax."""

SUFFIXES = (".csv", ".csv.gz")

_COMPRESSION_LEVEL = 2
"""Of ISA-L's 0 to 3: as fast as the lower ones on run-length text; 20 times zlib's level 6 for 3 % more bytes."""

_GZIP = 16 + isal_zlib.MAX_WBITS


@dataclass(frozen=True)
class Columns:
    """What a submission's columns are called, and its images in the first.

    header: one of ``data.rle_csv.HEADERS``. names: by image id; None: ``<id>.jpg`` in a column ``img``, else the id.
    """

    header: str = HEADERS[0]
    names: Mapping[str, str] | None = None

    def name(self, image_id: str) -> str:
        """The image as its row has it.

        Raises:
            DataError: the id cannot be one.
        """
        if self.names is not None:
            return self.names[image_id]
        return f"{check_id(image_id)}.jpg" if self.header.startswith("img,") else check_id(image_id)


_CARVANA = Columns()


def columns_of(dialect: str, header: str | None = None, sample: Path | None = None) -> Columns:
    """The columns of a submission: those of the sample, or under a header, or of the dialect's competition.

    Raises:
        UsageError: an unknown header, or another than the sample's; or the sample has another suffix.
        DataError: a sample that is no table of RLEs, has no row, or has an image twice.
    """
    if header is not None and header not in HEADERS:
        raise UsageError(f"header {header!r} is unknown: there are {'; '.join(HEADERS)}")
    if sample is None:
        return Columns(header or _HEADERS.get(dialect, HEADERS[0]))
    rows = table_rows(sample)
    found = ",".join(next(rows))
    if header not in (None, found):
        raise UsageError(f"{sample} has the header {found}: leave out --header {header}")
    names: dict[str, str] = {}
    for number, (name, _) in enumerate(rows, start=1):
        image_id = row_id(name, number, sample)
        if image_id in names:
            raise DataError(f"{sample} has image {image_id!r} twice: keep one of its rows")
        names[image_id] = name
    if not names:
        raise DataError(f"{sample} has a header and no rows: there is no image in it")
    return Columns(found, names)


def write_submission(
    path: Path, rows: Iterable[tuple[str, bytes]], dialect: str = CARVANA, columns: Columns | None = None
) -> int:
    """Writes a submission and returns the number of its rows.

    Args:
        path: ``.csv``, or ``.csv.gz`` for one gzip stream. A stop, or an error in ``rows``, leaves the old file.
        rows: image id and RLE as ASCII (``b"1 3 10 5"``, empty for an empty mask), in the order of the file.
        dialect: that the RLEs are of; see ``core.rle_dialects``.
        columns: header and names; None: those of the dialect.

    Raises:
        UsageError: another suffix, or an unknown dialect.
        DataError: an id that comes twice or cannot be one, an RLE of other characters, or no row at all.
        CarvanaEnsError: the file cannot be written.
    """
    check_suffix(path)
    written, columns = find_dialect(dialect), columns or columns_of(dialect)
    seen: set[str] = set()
    remove_left_behind(path)  # of 100,000 photos it is a gigabyte
    with replacing(path) as temporary, _opened(temporary, compressed=path.name.endswith(".gz")) as write:
        write(f"{columns.header}\n".encode())
        for image_id, rle in rows:
            if image_id in seen:
                raise DataError(f"{path}: image id {image_id!r} comes twice; a submission has one row per photo")
            seen.add(image_id)
            write(submission_row(image_id, rle, written, columns))
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


def check_row(image_id: str, rle: bytes, bits: Bits, size: Size, dialect: str = CARVANA) -> None:
    """Decodes the RLE of a mask (``core.rle.mask_bits``) and compares them.

    Raises:
        DataError: it cannot be decoded, or is another mask.
    """
    try:
        decoded = mask_bits(find_dialect(dialect).decode(rle.decode("ascii"), size))
    except RLEError as error:
        raise RLEError(f"the row of image {image_id!r}, for a mask of {size}: {error}") from error
    different = decoded ^ bits
    if different.any():
        pixels = np.flatnonzero(np.unpackbits(different.astype("<u8", copy=False).view(np.uint8), bitorder="little"))
        raise DataError(
            f"the row of image {image_id!r} differs from its mask in {pixels.size} pixels, first at row "
            f"{pixels[0] // size.width}, column {pixels[0] % size.width}: report it as a fault of carvana-ens"
        )


def row_digest(rle: bytes) -> bytes:
    """sha256 of an RLE, for ``compare_submission``."""
    return hashlib.sha256(rle).digest()


def compare_submission(path: Path, rows: Iterable[tuple[str, bytes]]) -> int:
    """Reads a submission, compares each row with what was written, and returns the number of rows.

    Args:
        path: what :func:`write_submission` wrote.
        rows: image id and ``row_digest`` of its RLE, in the order of the file.

    Raises:
        DataError: the first row that is missing, cannot be read, or is another; or a row more than were written.
        UsageError: a suffix that no submission has.
    """
    number = 0
    found = rle_rows(path)
    for number, (image_id, digest) in enumerate(rows, start=1):
        row = next(found, None)
        if row is None:
            raise DataError(f"{path} ends before image {image_id!r} (row {number}): write it again")
        if row[0] != image_id:
            raise DataError(f"row {number} of {path} is image {row[0]!r} where {image_id!r} is due: write it again")
        if row_digest(row[1].encode()) != digest:
            raise DataError(f"the RLE of image {image_id!r} in {path} differs from what was written: write it again")
    extra = next(found, None)
    if extra is not None:
        raise DataError(f"{path} has a row too many after {number}, image {extra[0]!r}: write it again")
    return number


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


def submission_row(image_id: str, rle: bytes, dialect: Dialect, columns: Columns = _CARVANA) -> bytes:
    """The line of one photo.

    Raises:
        DataError: an id that cannot be one, or an RLE of other characters than the dialect has.
    """
    name = columns.name(image_id)
    if rle.translate(None, dialect.characters):
        raise DataError(
            f"the RLE of image {image_id!r} has other characters than dialect {dialect.name} has: {rle[:40]!r}"
        )
    if "," in name or '"' in name:
        name = '"' + name.replace('"', '""') + '"'
    return b"%b,%b\n" % (name.encode(), rle)
