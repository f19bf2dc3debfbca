"""Masks as a table of run-length encodings, one row a photo: ``img,rle_mask`` as Kaggle's Carvana challenge has it.

Read by hand and line by line. pandas cannot be made strict here: it reads a row without a comma as an empty mask
(the last row of a file that was cut off), and no option tells the two apart. Python's csv module can, but stops at
fields of 131,072 characters unless a setting of the whole process is changed. The form is simple enough to need
neither.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from carvana_ens.data.ids import check_id, id_of
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Mask, Size

SUFFIXES = (".csv", ".csv.gz", ".zip")

HEADERS = (
    "img,rle_mask",
    "id,rle_mask",
    "ImageId,EncodedPixels",
    "id,rle",
    "id,predicted",
    "record_id,encoded_pixels",
)
"""Of Kaggle's competitions: Carvana; TGS Salt; Data Science Bowl 2018, Airbus Ships and SIIM-ACR Pneumothorax; HuBMAP +
HPA; HuBMAP Kidney; Contrails."""
_BYTE_ORDER_MARK = "\ufeff"
# RFC 4180 for two fields. A field in quotes may hold commas, and quotes written twice; line ends never.
_FIELD = r'(?:"((?:[^"]|"")*)"|([^",]*))'
_QUOTED_ROW = re.compile(f"{_FIELD},{_FIELD}")


class RLETable:
    """The masks of an RLE table by image id; decoded when read."""

    def __init__(self, path: Path, dialect: str = "carvana") -> None:
        """Reads the whole table; the encodings stay in memory as they are.

        Raises:
            UsageError: an unknown dialect; see ``core.rle_dialects``.
            DataError: see :func:`read_rle_csv`.
        """
        from carvana_ens.core.rle_dialects import find_dialect  # numba

        self.path = path
        self._decode = find_dialect(dialect).decode
        self._rows = dict(sorted(read_rle_csv(path).items()))

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a row, sorted."""
        return tuple(self._rows)

    @property
    def describe(self) -> str:
        """The file and the number of its rows."""
        return f"{len(self._rows)} run-length encodings in {self.path}"

    def own_size(self, image_id: str) -> Size | None:
        """None: a table does not record sizes; see :class:`MaskSource`."""
        if image_id not in self._rows:
            raise unknown_id(image_id, str(self.path), self._rows)
        return None

    def read(self, image_id: str, size: Size) -> Mask:
        """(H, W) bool, True = object. A table does not record sizes: only runs past the photo's end are noticed.

        Raises:
            DataError: no such image.
            RLEError: an encoding that breaks the rules or does not fit into the photo.
        """
        if image_id not in self._rows:
            raise unknown_id(image_id, str(self.path), self._rows)
        try:
            return self._decode(self._rows[image_id], size)
        except RLEError as error:
            raise RLEError(f"the mask of image {image_id!r} in {self.path}, for a photo of {size}: {error}") from error


def read_rle_csv(path: Path) -> dict[str, str]:
    """The encoding of each image id, in the order of the file. Encodings are not checked here.

    Raises:
        UsageError: a file name of another suffix.
        DataError: see :func:`rle_rows`.
    """
    rows: dict[str, str] = {}
    for image_id, rle in rle_rows(path):
        if image_id in rows:
            raise DataError(f"{path} has image {image_id!r} twice: keep one of its rows")
        rows[image_id] = rle
    if not rows:
        raise DataError(f"{path} has a header and no rows: there is no mask in it")
    return rows


def rle_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Image id and encoding of each row, as the file is read; ids are not compared with each other.

    Raises:
        UsageError: a file name of another suffix.
        DataError: see :func:`table_rows`, or a name that cannot be an image id.
    """
    rows = table_rows(path)
    next(rows)
    for number, (name, rle) in enumerate(rows, start=1):
        yield row_id(name, number, path), rle


def table_rows(path: Path) -> Iterator[tuple[str, str]]:
    """The header, then name and encoding of each row, as the file is read.

    The header is one of ``HEADERS``; a name is that of a file or its stem. UTF-8 with or without byte order mark; any
    of the three line ends; fields may be quoted; ``.csv.gz`` is one gzip stream, ``.zip`` holds one file. Nothing is
    read as a number or as missing.

    Raises:
        UsageError: a file name of another suffix.
        DataError: another header, a row of other than two fields, or a file that is damaged or cut off.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UsageError(f"{path} ends in none of {', '.join(SUFFIXES)}: an RLE table does")
    try:
        with _text(path) as lines:
            header = _fields(next(lines, "").removeprefix(_BYTE_ORDER_MARK).rstrip("\n"))
            if header is None or ",".join(header) not in HEADERS:
                raise DataError(f"{path} has none of the headers {'; '.join(HEADERS)}: it begins with {header!r}")
            yield header
            number = 0
            for line in lines:
                row = line.rstrip("\n")
                if not row:
                    continue
                number += 1
                fields = _fields(row)
                if fields is None:
                    raise DataError(f"row {number} of {path} has not two fields, {','.join(header)}: {_short(row)!r}")
                yield fields
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}; save it as UTF-8") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there: name a file with the header {HEADERS[0]}") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {error}; is the file whole?") from error


def row_id(name: str, number: int, path: Path) -> str:
    """The image id of a row's name; DataError where it cannot be one."""
    try:
        return id_of(check_id(name))
    except DataError as error:
        raise DataError(f"row {number} of {path}: {error}") from error


def _fields(row: str) -> tuple[str, str] | None:
    if '"' not in row:
        name, comma, rle = row.partition(",")
        return (name, rle) if comma and "," not in rle else None
    match = _QUOTED_ROW.fullmatch(row)
    if match is None:
        return None
    quoted_name, name, quoted_rle, rle = match.groups()
    return (
        name if quoted_name is None else quoted_name.replace('""', '"'),
        rle if quoted_rle is None else quoted_rle.replace('""', '"'),
    )


def _short(row: str) -> str:
    return row if len(row) <= 60 else f"{row[:60]}..."


@contextmanager
def _text(path: Path) -> Iterator[Iterator[str]]:
    with _bytes(path) as raw, io.TextIOWrapper(raw, encoding="utf-8") as text:
        yield text


@contextmanager
def _bytes(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            # macOS puts a shadow of each file under __MACOSX, Kaggle's own archives among them.
            names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX/" not in name]
            if len(names) != 1:
                raise DataError(f"{path} holds {len(names)} files: an RLE table is one .csv in its archive")
            with archive.open(names[0]) as file:
                yield file
    elif path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as packed:
            yield cast("IO[bytes]", packed)
    else:
        with open(path, "rb") as plain:
            yield plain
