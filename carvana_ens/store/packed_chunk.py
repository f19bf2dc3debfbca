"""The file of a packed chunk: the maps of up to 64 images, first everything that a blend reads, then the rest.

Little-endian. A header (``HEADER``) and one ``ENTRY`` an image, both under the header's crc32c; the images' hot parts
one after the other; then their cold parts. What hot and cold mean is in ``core/packed.py``.

A hot part is the planes and the hot literals, an LZ4 block behind its decoded size (uint32), and after it a table of
(size, crc32c) for each stripe of the cold part, all under a crc32c in the entry. A cold part is stripes of 512 halves,
an LZ4 block each. An image is packed at its true size; one that is not there has height 0 and reads as zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import google_crc32c
import lz4.block
import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.packed import HALF, STRIPE, STRIPE_ENTRY, cold_octets, pack_map, unpack_map
from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import DataError, StoreError
from carvana_ens.store.chunks import ChunkError
from carvana_ens.store.place import ReadAt
from carvana_ens.types import Codes, Size

MAGIC = b"cve-pk02"
"""The last two digits are the version of the form. Version 1 had cold parts that a blend could not read in a kernel."""
HEADER = struct.Struct("<8sIIIII")
"""MAGIC, images, octets a code, height and width of the array, crc32c of the header so far and the entries."""

ENTRY = np.dtype(
    [
        *((name, "<u4") for name in ("height", "width", "words", "hots", "colds", "hot_crc", "codes_crc", "hot_size")),
        *((name, "<u8") for name in ("hot_at", "cold_at")),
    ]
)
"""True size; words of the planes, numbers of hot and cold halves; crc32c of the hot part, crc32 of the codes as in the
store's done record; size of the hot part; places from the start of the file."""

_TABLE = np.dtype([("size", "<u4"), ("crc", "<u4")])
_FAR = 1 << 62
"""Places beyond it are in no file, nor in what reads one."""
_LZ4_LEVEL = 4
"""Of LZ4's slow writer: its blocks are a sixth to a third smaller than those of the fast one, and decode sooner."""

_scratch = Scratch()


@dataclass(frozen=True)
class Part:
    """One image as it goes into the file: its entry without the places, and its two parts."""

    entry: tuple[int, ...]
    hot: bytes
    cold: bytes

    @property
    def codes_crc(self) -> int:
        """crc32 of the codes, as in the store's done record."""
        return self.entry[6]


@dataclass(frozen=True)
class Entry:
    """One image as it lies in the file; the fields of ``ENTRY``."""

    height: int
    width: int
    words: int
    hots: int
    colds: int
    hot_crc: int
    codes_crc: int
    hot_size: int
    hot_at: int
    cold_at: int


def encode(codes: Codes) -> Part:
    """Packs one map, (h, w) uint8 or uint16."""
    words, literals, cold = pack_map(codes)
    size = cold_octets(codes.itemsize)
    stripes = [_compress(cold[at : at + size * STRIPE], framed=False) for at in range(0, cold.size, size * STRIPE)]
    table = np.array([(len(stripe), google_crc32c.value(stripe)) for stripe in stripes], _TABLE).tobytes()
    hot = _compress(np.concatenate([words.view(np.uint8), literals]), framed=True) + table
    counts = (words.size, literals.size // (HALF * codes.itemsize), cold.size // size)
    sums = (google_crc32c.value(hot), zlib.crc32(np.ascontiguousarray(codes).data))
    return Part((*codes.shape, *counts, *sums, len(hot)), hot, b"".join(stripes))


def _compress(octets: NDArray[np.uint8], *, framed: bool) -> bytes:
    """An LZ4 block; framed: behind the size that it decodes to."""
    block: bytes = lz4.block.compress(octets.data, mode="high_compression", compression=_LZ4_LEVEL, store_size=framed)
    return block


def assemble(parts: Sequence[Part | None], itemsize: int, size: Size) -> list[bytes]:
    """The pieces of a file of these images, None for one that is not there."""
    entries = np.zeros(len(parts), ENTRY)
    at = HEADER.size + entries.nbytes
    for name in ("hot", "cold"):
        for number, part in enumerate(parts):
            if part is not None:
                entries[number] = (*part.entry, entries[number]["hot_at"], entries[number]["cold_at"])
                entries[number][f"{name}_at"] = at
                at += len(getattr(part, name))
    there = [part for part in parts if part is not None]
    head = HEADER.pack(MAGIC, len(parts), itemsize, *size, 0)[:-4]
    crc = google_crc32c.value(head + entries.tobytes())
    pieces = [head + crc.to_bytes(4, "little") + entries.tobytes()]
    return [*pieces, *(part.hot for part in there), *(part.cold for part in there)]


class PackedChunk:
    """The maps of one chunk, read image by image.

    table, hot_octets: all entries as an array of ``ENTRY``, and (images,) octets that their hot parts decode to.
    handle: of the open file, -1 where it is none.

    Its methods raise ChunkError where the file is damaged; they may be called from several threads.
    """

    def __init__(self, read_at: ReadAt, count: int, dtype: np.dtype[Any], size: Size) -> None:
        """Reads and checks header and entries of a chunk of that many images, dtype and array size.

        Raises:
            ChunkError: damaged, or another chunk's.
        """
        self._read_at, self._dtype = read_at, dtype
        self.handle: int = getattr(read_at, "handle", -1)
        whole = HEADER.size + count * ENTRY.itemsize
        head = self._read(0, whole)
        if head[:6] == MAGIC[:6] and head[:8] != MAGIC[:8] and head[6:8].isdigit():
            theirs, ours = int(head[6:8]), int(MAGIC[6:])
            raise ChunkError(f"is packed in form {theirs}, this version of carvana-ens reads form {ours}")
        if len(head) != whole or not head.startswith(MAGIC):
            raise ChunkError("is damaged (its header is cut or another file's)")
        _, *facts, crc = HEADER.unpack_from(head)
        if crc != google_crc32c.value(head[: HEADER.size - 4] + head[HEADER.size :]):
            raise ChunkError("is damaged (checksum of its header)")
        if facts != [count, dtype.itemsize, *size]:
            raise ChunkError(f"is another's: it says {facts}, expected {[count, dtype.itemsize, *size]}")
        self.table = np.frombuffer(head, ENTRY, offset=HEADER.size)
        self.hot_octets = self._check_entries(size)

    @cached_property
    def images(self) -> list[Entry | None]:
        """The entry of each image, None for one that is not there."""
        return [Entry(*row) if row[0] else None for row in self.table.tolist()]

    def _read(self, at: int, size: int) -> bytes:
        try:
            return self._read_at(at, size) if size else b""
        except (OSError, StoreError) as error:
            raise unreadable(error) from error

    def _checked(self, at: int, size: int, crc: int, what: str) -> bytes:
        stored = self._read(at, size)
        if len(stored) != size or google_crc32c.value(stored) != crc:
            raise ChunkError(f"is damaged (checksum of its {what})")
        return stored

    def _check_entries(self, size: Size) -> NDArray[np.int64]:
        """Octets that the hot parts decode to, if the entries can be true: nothing is allocated for one that lies."""
        height, width, words, hots, colds, stored = (
            self.table[name].astype(np.int64) for name in ("height", "width", "words", "hots", "colds", "hot_size")
        )
        halves = 2 * -(-height * width // 64)
        plane = -(-halves // 64)
        octets: NDArray[np.int64] = 8 * words + HALF * self._dtype.itemsize * hots
        block = stored - STRIPE_ENTRY * -(-colds // STRIPE)
        fits = (height <= size.height) & (width > 0) & (width <= size.width) & (hots + colds <= halves)
        fits &= (words <= 3 * (plane + -(-plane // 64))) & (block >= 0) & (block <= 2 * octets + 64)
        fits &= np.maximum(self.table["hot_at"], self.table["cold_at"]) <= _FAR
        if not np.all(fits | (height == 0)):
            raise ChunkError("is damaged (an entry of its header cannot be)")
        return octets

    def _hot_octets(self, entry: Entry) -> int:
        return 8 * entry.words + HALF * self._dtype.itemsize * entry.hots

    def hot_words(self, entry: Entry) -> int:
        """Number of uint64 words that ``read_hot`` fills."""
        return -(-self._hot_octets(entry) // 8)

    def stored_hot(self, entry: Entry) -> bytes:
        """An image's hot part as the file holds it, checked."""
        return self._checked(entry.hot_at, entry.hot_size, entry.hot_crc, "hot part")

    def read_hot(self, entry: Entry, out: NDArray[np.uint64]) -> None:
        """Reads and decodes an image's hot part into out, (hot_words,)."""
        self._decode_hot(entry, self.stored_hot(entry), out)

    def _decode_hot(self, entry: Entry, stored: bytes, out: NDArray[np.uint64]) -> None:
        octets = self._hot_octets(entry)
        if int.from_bytes(stored[:4], "little") != octets:  # less would leave in out what was there before
            raise _undecodable("hot part")
        try:
            decoded = lz4.block.decompress(memoryview(stored)[: len(stored) - STRIPE_ENTRY * self._stripes(entry)])
        except lz4.block.LZ4BlockError as error:
            raise _undecodable("hot part") from error
        out.view(np.uint8)[:octets] = np.frombuffer(decoded, np.uint8)

    def read_cold(self, entry: Entry, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some of an image's cold halves, (n,) increasing, as (n, ``cold_octets``) octets.

        Reads and decodes, after the hot part, only the stripes that hold them.
        """
        if places.size and places[-1] >= entry.colds:
            raise ChunkError("is damaged (it has fewer cold halves than its planes say)")
        table, ends = self._stripe_table(entry, self.stored_hot(entry))
        found = np.empty((places.size, cold_octets(self._dtype.itemsize)), np.uint8)
        numbers = places // STRIPE
        for number in sorted(set(numbers.tolist())):
            wanted = numbers == number
            found[wanted] = self._stripe(entry, table, ends, number)[places[wanted] % STRIPE]
        return found

    def _stripes(self, entry: Entry) -> int:
        return -(-entry.colds // STRIPE)

    def _stripe_table(self, entry: Entry, stored: bytes) -> tuple[Any, NDArray[np.int64]]:
        """The table of an image's stripes, behind its hot part as stored, and where each ends in the file."""
        table = np.frombuffer(stored, _TABLE, offset=len(stored) - STRIPE_ENTRY * self._stripes(entry))
        return table, np.cumsum(table["size"], dtype=np.int64) + entry.cold_at

    def _stripe(self, entry: Entry, table: Any, ends: NDArray[np.int64], number: int) -> NDArray[np.uint8]:
        """(halves, octets of a half) of one stripe."""
        shape = min(STRIPE, entry.colds - number * STRIPE), cold_octets(self._dtype.itemsize)
        octets = shape[0] * shape[1]
        size, crc = table[number].item()
        if size > 2 * octets + 64:
            raise ChunkError("is damaged (a stripe of its cold part cannot be so long)")
        stored = self._checked(int(ends[number]) - size, size, crc, "cold part")
        try:
            decoded = lz4.block.decompress(stored, uncompressed_size=octets)
        except lz4.block.LZ4BlockError as error:
            raise _undecodable("cold part") from error
        if len(decoded) != octets:
            raise _undecodable("cold part")
        return np.frombuffer(decoded, np.uint8).reshape(shape)

    def read(self, entry: Entry, out: Codes) -> None:
        """Reads and decodes all codes of an image into out, (h, w) of its true size."""
        words = _scratch.array("words", self.hot_words(entry), np.uint64)
        stored = self.stored_hot(entry)
        self._decode_hot(entry, stored, words)
        hot = words.view(np.uint8)[8 * entry.words : self._hot_octets(entry)].view(self._dtype)
        size = cold_octets(self._dtype.itemsize)
        cold = _scratch.array("cold", size * entry.colds, np.uint8)
        table, ends = self._stripe_table(entry, stored)
        for number in range(len(table)):
            at = number * STRIPE
            cold.reshape(-1, size)[at : at + STRIPE] = self._stripe(entry, table, ends, number)
        try:
            unpack_map(words[: entry.words], hot, cold, out)
        except DataError as error:
            raise ChunkError(f"does not decode ({error})") from error


def unreadable(error: OSError | StoreError) -> ChunkError:
    """What a file system or a server says when it does not give a chunk."""
    reason = error.strerror if isinstance(error, OSError) else None
    return ChunkError(f"cannot be read: {reason or error}", cure=False)


def _undecodable(what: str) -> ChunkError:
    return ChunkError(f"does not decode (its {what})")
