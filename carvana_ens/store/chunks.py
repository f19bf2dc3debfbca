"""The codes of one image, straight from its chunk where the layout is ours.

A chunk's bytes are read into a buffer of the thread's, their checksum is compared, and they are decoded into the
caller's own array: a fraction of the time of zarr's indexing, with a missing chunk an error (zarr reads zeros), and
with a bound on what a hostile chunk can allocate. Reading, decoding and, at a mebibyte and more of ``bytes``, the
checksum let other threads run. A test holds it equal to zarr's own reading.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import google_crc32c
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import StoreError
from carvana_ens.store.place import Folder, Place
from carvana_ens.types import Codes

Stored = NDArray[np.uint8]
"""(B,) bytes of a chunk as they are stored."""

CHECKSUM = 4
"""Bytes of the crc32c at the end of a chunk, little-endian."""

_scratch = Scratch()


class ChunkError(Exception):
    """Why an image cannot be read: the end of a sentence that begins with its chunk. The store knows the rest.

    cure: whether making the store anew helps.
    """

    def __init__(self, reason: str, *, cure: bool = True) -> None:
        super().__init__(reason)
        self.cure = cure


class Reader(Protocol):
    """Reads the images of a store by number; chosen by layout when the store is opened, used from several threads.

    checked: whether a checksum of the stored bytes was compared; if not, the store compares the done record's.
    """

    checked: bool

    def read_into(self, number: int, out: Codes) -> None:
        """Writes the codes of one image into out, (h, w) at its true size, C-contiguous, of the store's dtype.

        Raises:
            ChunkError: the chunk is gone or damaged, or is not what it should be.
        """


LEVEL = 1
"""Of zstd, of the chunks that we write."""


def chunk_of(codes: Codes) -> bytes:
    """The bytes of the chunk of one image, of the whole array's size, equal to what zarr writes in our layout."""
    rows = np.ascontiguousarray(codes, codes.dtype.newbyteorder("<"))  # a view of turned codes lies in memory otherwise
    content: bytes = numcodecs.zstd.compress(rows, LEVEL)
    return content + int(google_crc32c.value(content)).to_bytes(CHECKSUM, "little")


class DirectReader:
    """Reads our own layout: one image a chunk, codecs bytes (little-endian), zstd, crc32c.

    shape: (H, W) of the array. dtype: "uint8" or "uint16".
    """

    checked = True

    def __init__(self, place: Place, shape: tuple[int, int], dtype: str) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._pixels = shape[0] * shape[1]
        self._bytes = self._pixels * self._dtype.itemsize
        # what zstd may make of codes that do not compress (ZSTD_COMPRESSBOUND), and the checksum
        bound = self._bytes + self._bytes // 256 + 1024 + CHECKSUM
        self._stored = _local(place, bound) if isinstance(place, Folder) else _remote(place)

    def begin(self, number: int, out: Codes) -> Callable[[], None]:
        """The first half of ``read_into``: what is stored is read and checked; the function returned decodes it.

        To be called by the same thread before it begins another image of this store.
        """
        stored = self._stored(f"prob/c/{number}/0/0")
        content = stored[:-CHECKSUM]
        if not content.size or google_crc32c.value(content) != int.from_bytes(stored[-CHECKSUM:], "little"):
            raise ChunkError("is damaged (checksum)")
        if frame_size(content[:18].tobytes()) != self._bytes:
            raise ChunkError("does not decode")
        return partial(self._decode, content, out)

    def read_into(self, number: int, out: Codes) -> None:
        """See Reader."""
        self.begin(number, out)()

    def _decode(self, content: Stored, out: Codes) -> None:
        whole = out
        if out.shape != self._shape or out.dtype != self._dtype:
            whole = _scratch.array(f"whole {self._dtype}", self._pixels, self._dtype).reshape(self._shape)
        try:
            # with a destination given, a frame that holds more than it says is refused, not allocated
            numcodecs.zstd.decompress(content, whole)
        except (RuntimeError, ValueError) as error:
            raise ChunkError("does not decode") from error
        if whole is not out:
            np.copyto(out, whole[: out.shape[0], : out.shape[1]])


def gone() -> ChunkError:
    """The error of a chunk that is not there."""
    return ChunkError("is gone although its map is recorded as done")


def frame_size(head: bytes) -> int | None:
    """Bytes that a zstd frame says it holds, None when it does not say (RFC 8878, 3.1.1.1). head: its first 18."""
    descriptor = head[4] if len(head) > 4 else 0
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    if flag == 0 and not single:
        return None
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1, 2, 4, 8)[flag]
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _local(place: Folder, bound: int) -> Callable[[str], Stored]:
    """Reads a file of the folder into the thread's buffer; bound: bytes of the longest that can be meant."""
    folder, scratch = str(place), Scratch()

    def stored(key: str) -> Stored:
        buffer = scratch.array("stored", bound + 1, np.uint8)
        length = 0
        try:
            with open(f"{folder}{os.sep}{key}", "rb", buffering=0) as file:
                while length <= bound and (more := file.readinto(buffer[length:])):
                    length += more
        except (FileNotFoundError, NotADirectoryError):
            raise gone() from None
        except OSError as error:
            raise ChunkError(f"cannot be read: {error.strerror or error}", cure=False) from error
        if length > bound:
            raise ChunkError("does not decode (longer than any map of this size)")
        return buffer[:length]  # type: ignore[no-any-return]

    return stored


def _remote(place: Place) -> Callable[[str], Stored]:
    def stored(key: str) -> Stored:
        try:
            found: Any = place.get(key)
        except StoreError as error:
            raise ChunkError(f"cannot be read: {error}", cure=False) from error
        if found is None:
            raise gone()
        return np.frombuffer(found, np.uint8)

    return stored
