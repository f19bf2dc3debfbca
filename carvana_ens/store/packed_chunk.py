"""The file of a packed chunk: the maps of up to 64 images, first everything that a blend reads, then the rest.

Little-endian. A header (``HEADER``) and one ``ENTRY`` an image, both under the header's crc32c; the images' hot parts
one after the other; then their cold parts. What hot and cold mean is in ``core/packed.py``.

A hot part is the planes and the hot literals, an LZ4 block behind its decoded size (uint32), under a crc32c in its
entry. A cold part is a table of (size, crc32c) for each stripe of 512 halves, itself under a crc32c in its entry, and
the stripes, zstd. An image is packed at its true size; one that is not there has height 0 and reads as zeros.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray

from carvana_ens.core.packed import HALF, halves_of, pack_map, unpack_map
from carvana_ens.core.scratch import Scratch
from carvana_ens.errors import DataError, StoreError
from carvana_ens.store.chunks import ChunkError, frame_size
from carvana_ens.store.place import ReadAt
from carvana_ens.types import Codes, Size

MAGIC = b"cve-pk01"
HEADER = struct.Struct("<8sIIIII")
"""MAGIC, images, octets a code, height and width of the array, crc32c of the header so far and the entries."""

ENTRY = np.dtype(
    [
        *(
            (name, "<u4")
            for name in ("height", "width", "words", "hots", "colds", "hot_crc", "table_crc", "codes_crc", "hot_size")
        ),
        *((name, "<u8") for name in ("hot_at", "cold_at")),
    ]
)
"""True size; words of the planes, numbers of hot and cold halves; crc32c of the hot part and of the cold part's table,
crc32 of the codes as in the store's done record; size of the hot part; places from the start of the file."""

STRIPE = 512
"""Halves of a stripe of a cold part: a blend that needs one of them decodes no more than these."""

_TABLE = np.dtype([("size", "<u4"), ("crc", "<u4")])
_FAR = 1 << 62
"""Places beyond it are in no file, nor in what reads one."""
_ZSTD_LEVEL = 1
_LZ4_LEVEL = 4
"""Of LZ4's slow writer: its blocks are a sixth to a third smaller than those of the fast one, and decode sooner."""

_scratch = Scratch()


class _Zstd(threading.local):
    """zstd by contexts that each thread uses again: making one takes longer than decoding a stripe."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


@dataclass(frozen=True)
class Part:
    """One image as it goes into the file: its entry without the places, and its two parts."""

    entry: tuple[int, ...]
    hot: bytes
    cold: bytes

    @property
    def codes_crc(self) -> int:
        """crc32 of the codes, as in the store's done record."""
        return self.entry[7]


@dataclass(frozen=True)
class Entry:
    """One image as it lies in the file; the fields of ``ENTRY``."""

    height: int
    width: int
    words: int
    hots: int
    colds: int
    hot_crc: int
    table_crc: int
    codes_crc: int
    hot_size: int
    hot_at: int
    cold_at: int


def encode(codes: Codes) -> Part:
    """Packs one map, (h, w) uint8 or uint16."""
    words, literals, cold = pack_map(codes)
    content = np.concatenate([words.view(np.uint8), literals])
    hot = lz4.block.compress(content.data, mode="high_compression", compression=_LZ4_LEVEL)
    step = HALF * STRIPE
    stripes = [_zstd.compress(cold[at : at + step].data) for at in range(0, cold.size, step)]
    table = np.array([(len(stripe), google_crc32c.value(stripe)) for stripe in stripes], _TABLE).tobytes()
    counts = (words.size, literals.size // (HALF * codes.itemsize), cold.size // HALF)
    sums = (google_crc32c.value(hot), google_crc32c.value(table), zlib.crc32(np.ascontiguousarray(codes).data))
    return Part((*codes.shape, *counts, *sums, len(hot)), hot, table + b"".join(stripes))


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
    """The maps of one chunk, read image by image. images: Entry of each, None for one that is not there.

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
        if len(head) != whole or not head.startswith(MAGIC):
            raise ChunkError("is damaged (its header is cut or another file's)")
        _, *facts, crc = HEADER.unpack_from(head)
        if crc != google_crc32c.value(head[: HEADER.size - 4] + head[HEADER.size :]):
            raise ChunkError("is damaged (checksum of its header)")
        if facts != [count, dtype.itemsize, *size]:
            raise ChunkError(f"is another's: it says {facts}, expected {[count, dtype.itemsize, *size]}")
        self.table = np.frombuffer(head, ENTRY, offset=HEADER.size)
        self.images = [self._possible(Entry(*row), size) if row[0] else None for row in self.table.tolist()]
        literals = HALF * dtype.itemsize * self.table["hots"].astype(np.int64)
        self.hot_octets = 8 * self.table["words"].astype(np.int64) + literals

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

    def _possible(self, entry: Entry, size: Size) -> Entry:
        """The entry, if what it says can be: nothing is allocated for one that lies."""
        halves = halves_of(entry.height * entry.width)
        words = -(-halves // 64)
        fits = 0 < entry.height <= size.height and 0 < entry.width <= size.width and entry.hots + entry.colds <= halves
        near = max(entry.hot_at, entry.cold_at) <= _FAR and entry.hot_size <= 2 * self._hot_octets(entry) + 64
        if not (fits and near) or entry.words > 3 * (words + -(-words // 64)):
            raise ChunkError("is damaged (an entry of its header cannot be)")
        return entry

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
        stored = self.stored_hot(entry)
        octets = self._hot_octets(entry)
        if int.from_bytes(stored[:4], "little") != octets:  # less would leave in out what was there before
            raise _undecodable("hot part")
        try:
            decoded = lz4.block.decompress(stored)
        except lz4.block.LZ4BlockError as error:
            raise _undecodable("hot part") from error
        out.view(np.uint8)[:octets] = np.frombuffer(decoded, np.uint8)

    def read_cold(self, entry: Entry, places: NDArray[np.int64]) -> Codes:
        """(n, 32) codes of some of an image's cold halves, (n,) increasing; decodes only the stripes that hold them."""
        if places.size and places[-1] >= entry.colds:
            raise ChunkError("is damaged (it has fewer cold halves than its planes say)")
        table, ends = self._stripe_table(entry)
        found: Codes = np.empty((places.size, HALF), self._dtype)
        numbers = places // STRIPE
        for number in sorted(set(numbers.tolist())):
            wanted = numbers == number
            found[wanted] = self._stripe(entry, table, ends, number)[places[wanted] % STRIPE]
        return found

    def _stripe_table(self, entry: Entry) -> tuple[Any, NDArray[np.int64]]:
        """The table of an image's stripes, and where each ends in the file."""
        stripes = -(-entry.colds // STRIPE)
        stored = self._checked(entry.cold_at, stripes * _TABLE.itemsize, entry.table_crc, "cold part's table")
        table = np.frombuffer(stored, _TABLE)
        return table, np.cumsum(table["size"], dtype=np.int64) + (entry.cold_at + len(stored))

    def _stripe(self, entry: Entry, table: Any, ends: NDArray[np.int64], number: int) -> Codes:
        """(halves, 32) codes of one stripe."""
        halves = min(STRIPE, entry.colds - number * STRIPE)
        octets = HALF * halves * self._dtype.itemsize
        size, crc = table[number].item()
        if size > 2 * octets + 64:
            raise ChunkError("is damaged (a stripe of its cold part cannot be so long)")
        stored = self._checked(int(ends[number]) - size, size, crc, "cold part")
        if frame_size(stored[:18].ljust(18)) != octets:  # what it says is what is allocated
            raise _undecodable("cold part")
        try:
            decoded = _zstd.decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise _undecodable("cold part") from error
        codes: Codes = np.frombuffer(decoded, self._dtype).reshape(halves, HALF)
        return codes

    def read(self, entry: Entry, out: Codes) -> None:
        """Reads and decodes all codes of an image into out, (h, w) of its true size."""
        words = _scratch.array("words", self.hot_words(entry), np.uint64)
        self.read_hot(entry, words)
        hot = words.view(np.uint8)[8 * entry.words : self._hot_octets(entry)].view(self._dtype)
        cold = _scratch.array(f"{self._dtype.name} cold", HALF * entry.colds, self._dtype)
        table, ends = self._stripe_table(entry)
        for number in range(len(table)):
            at = number * STRIPE
            cold.reshape(-1, HALF)[at : at + STRIPE] = self._stripe(entry, table, ends, number)
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
