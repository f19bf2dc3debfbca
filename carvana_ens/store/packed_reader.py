"""Reading packed stores, whose ``prob`` has chunks of many images and the one codec ``carvana_ens.packed``."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from carvana_ens.errors import StoreError
from carvana_ens.store.chunks import ChunkError, gone
from carvana_ens.store.packed_chunk import Entry, PackedChunk, unreadable
from carvana_ens.store.packed_codec import CODEC
from carvana_ens.store.place import Place
from carvana_ens.types import Codes, Size

KEPT = 8
"""Chunks of a store whose headers are kept, while several threads read images in order."""
MOST = 4096
"""Images of a chunk that we read: nothing is allocated for metadata that say more."""
SEPARATOR = "."
"""Chunks are named c.0.0.0, so that they and those of the growing store (c/0/0/0) can be there at a time."""


def chunk_key(at: int) -> str:
    """Where a chunk lies in the store."""
    return f"prob/c.{at}.0.0"


def is_packed(prob: Any) -> bool:
    """Whether a zarr array is laid out as packed stores are."""
    names = [codec.to_dict()["name"] for codec in prob.metadata.codecs]
    keys = prob.metadata.chunk_key_encoding.to_dict()
    ours = {"name": "default", "configuration": {"separator": SEPARATOR}}
    return names == [CODEC] and keys == ours and prob.chunks[1:] == prob.shape[1:] and 0 < prob.chunks[0] <= MOST


class PackedReader:
    """Reads the images of a packed store by number; see ``chunks.Reader``.

    size: (H, W) of ``prob``. images: images of a chunk. dtype: "uint8" or "uint16", of the codes.
    """

    checked = False  # its checksums do not tell a chunk from that of another store or other images

    def __init__(self, place: Place, size: Size, images: int, dtype: str) -> None:
        self._place, self._size, self.images = place, size, images
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._opening = threading.Lock()
        self._chunks: dict[int, PackedChunk] = {}

    def read_into(self, number: int, out: Codes) -> None:
        """See Reader."""
        chunk, entry = self.find(number, Size(*out.shape))
        chunk.read(entry, out)

    def find(self, number: int, size: Size) -> tuple[PackedChunk, Entry]:
        """The chunk of an image of that true size, and its entry there.

        Raises:
            ChunkError: the chunk is gone or damaged, or holds another size.
        """
        at, within = divmod(number, self.images)
        chunk = self.chunk(at)
        entry = chunk.images[within]
        if entry is None:
            raise gone()
        if (entry.height, entry.width) != size:
            raise ChunkError(f"holds it as {Size(entry.height, entry.width)}, expected {size}")
        return chunk, entry

    def chunk(self, at: int) -> PackedChunk:
        """A chunk by its number.

        Raises:
            ChunkError: it is gone or damaged.
        """
        return self._chunks.get(at) or self._open(at)

    def _open(self, at: int) -> PackedChunk:
        with self._opening:
            chunk = self._chunks.get(at)
            if chunk is None:
                try:
                    read_at = self._place.ranges(chunk_key(at))
                except (OSError, StoreError) as error:
                    raise unreadable(error) from error
                if read_at is None:
                    raise gone()
                chunk = PackedChunk(read_at, self.images, self.dtype, self._size)
                while len(self._chunks) >= KEPT:
                    del self._chunks[next(iter(self._chunks))]  # whoever still reads from it holds it open
                self._chunks[at] = chunk
            return chunk
