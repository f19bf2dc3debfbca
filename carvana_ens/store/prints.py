"""Which photos the maps of a store were made of: a fingerprint each, by which a photo that changed is noticed.

It is of the image's photo, or of those of its whole group where a model sees them at once.

They lie in an array of their own, ``photos``, uint64 (N,), of chunks and codecs as ``done`` has them: ``UNKNOWN`` where
nobody knows, as in stores of imported maps and of earlier versions, which have no such array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import StoreError
from carvana_ens.store.chunks import CHECKSUM
from carvana_ens.store.documents import PHOTOS, records_document
from carvana_ens.store.place import Place
from carvana_ens.store.schema import DONE_CHUNK

UNKNOWN = np.uint64(0)
LEAST = 2
"""Of the fingerprint of a photo; 1 is of a photo that changed while its map was made."""
_READERS = 8
"""Chunks that are read at a time, for the sake of those that are far away."""

Print = Callable[[str], int]
"""The fingerprint of an image's photo as it is now."""


class Prints:
    """The fingerprints of a store at a place. values: (N,), ``UNKNOWN`` for all where the store has none."""

    def __init__(self, place: Place, count: int) -> None:
        """Reads them.

        Raises:
            StoreError: they are damaged.
        """
        self._place, self._made = place, place.get(PHOTOS) is not None
        self.values = np.zeros(count, np.uint64)
        if not self._made:
            return
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(place.get, map(_key, range(0, count, DONE_CHUNK))))
        size = min(DONE_CHUNK, count)
        self.values = np.concatenate([_decoded(place, content, size) for content in found])[:count]

    def put(self, changed: Mapping[int, int]) -> None:
        """Changes and writes some, by number of the image."""
        if not self._made:
            self._place.put(PHOTOS, records_document(len(self.values)))
            self._made = True
        for number, value in changed.items():
            self.values[number] = value
        for first in sorted({number // DONE_CHUNK * DONE_CHUNK for number in changed}):
            put_records(self._place, "photos", self.values, first)


def prints_damage(place: Place, count: int) -> list[str]:
    """What is wrong with the fingerprints of a store, in words."""
    try:
        Prints(place, count)
    except StoreError as error:
        return [str(error)]
    return []


def mend_prints(place: Place, count: int) -> bool:
    """Has the store forget the fingerprints in damaged chunks; whether there were any. Its lock must be held."""
    mended = False
    for first in range(0, count if place.get(PHOTOS) is not None else 0, DONE_CHUNK):
        try:
            _decoded(place, place.get(_key(first)), min(DONE_CHUNK, count))
        except StoreError:
            put_records(place, "photos", np.zeros(count, np.uint64), first)
            mended = True
    return mended


def put_records(place: Place, array: str, records: NDArray[np.uint64], first: int) -> None:
    """Writes the chunk that begins with record ``first`` of an array like ``done``, (N,), a fifth of zarr's time."""
    chunk = np.zeros(min(DONE_CHUNK, len(records)), "<u8")
    part = records[first : first + DONE_CHUNK]
    chunk[: len(part)] = part
    content = chunk.tobytes()
    place.put(f"{array}/c/{first // DONE_CHUNK}", content + google_crc32c.value(content).to_bytes(CHECKSUM, "little"))


def _key(first: int) -> str:
    return f"photos/c/{first // DONE_CHUNK}"


def _decoded(place: Place, content: bytes | None, size: int) -> NDArray[np.uint64]:
    """A chunk of so many; UNKNOWN where it was never written."""
    if content is None:
        return np.zeros(size, np.uint64)
    body = content[:-CHECKSUM]
    whole = len(content) == 8 * size + CHECKSUM
    if not whole or google_crc32c.value(body) != int.from_bytes(content[-CHECKSUM:], "little"):
        raise StoreError(
            f"{place}: array photos is damaged, and with it what photos the maps were made of: verify --repair has the "
            f"store forget it"
        )
    return np.frombuffer(body, "<u8").astype(np.uint64)
