"""The blend of packed stores, which reads the parts of each map that can matter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.packed import ColdHalves, HotPartError, HotParts, PackedBlend, Stored
from carvana_ens.store.chunks import ChunkError
from carvana_ens.store.packed_chunk import Entry
from carvana_ens.store.packed_reader import KEPT, PackedReader
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits

Result = TypeVar("Result")


class PackedStack:
    """The masks of one picture after the other from packed stores; may be used from several threads.

    stores: packed, of the same images in the same sizes. weights: (M,) uint32. cut_sum, full_scale: as for
    ``blend_bits``; ``core.packed.can_blend`` must hold.
    """

    def __init__(
        self, stores: Sequence[ProbabilityStore], weights: NDArray[np.uint32], cut_sum: int, full_scale: int
    ) -> None:
        self._stores = tuple(stores)
        self._readers = [store.packed for store in stores if store.packed is not None]
        self._blend = PackedBlend(weights, [reader.dtype for reader in self._readers], cut_sum, full_scale)
        self._steps = sorted({reader.images for reader in self._readers})
        self._opening = threading.Lock()
        self._runs: dict[tuple[int, ...], _Run] = {}

    def bits(self, image_id: str) -> Bits:
        """The mask of one image as bit words; valid until this thread asks for another.

        Raises:
            StoreError: a map that is gone or damaged; names store and id.
        """
        return self._blended(image_id, self._blend.bits)

    def rle(self, image_id: str) -> bytes:
        """The run lengths of one image's mask; raises the same."""
        return self._blended(image_id, self._blend.rle)

    def _blended(self, image_id: str, blend: Callable[[HotParts, int, Stored, ColdHalves], Result]) -> Result:
        number = self._stores[0].index[image_id]
        height, width = self._stores[0].sizes[number]
        try:
            key = tuple(number // step for step in self._steps)
            run = self._runs.get(key) or self._open(key, number)
            if not run.fits[number - run.first]:
                self._refuse(number)

            def hot(member: int) -> bytes:
                with _of(member):
                    return run.chunks[member].stored_hot(run.entry(member, number))

            def cold(member: int, places: NDArray[np.int64]) -> NDArray[np.uint8]:
                with _of(member):
                    return run.chunks[member].read_cold(run.entry(member, number), places)

            return blend(run.parts(number), height * width, hot, cold)
        except _MemberError as error:
            raise self._stores[error.member].explain(image_id, error.reason) from error
        except HotPartError as error:
            broken = ChunkError("does not decode (its hot part)")
            raise self._stores[error.member].explain(image_id, broken) from error

    def _open(self, key: tuple[int, ...], number: int) -> _Run:
        """The run of images that an image belongs to; the last few are kept, for threads that read in order."""
        with self._opening:
            run = self._runs.get(key)
            if run is None:
                run = _Run(self._stores, self._readers, number)
                while len(self._runs) >= KEPT:
                    del self._runs[next(iter(self._runs))]
                self._runs[key] = run
            return run

    def _refuse(self, number: int) -> None:
        """Says what is wrong with the first member whose chunk does not hold an image as it should."""
        for member, (store, reader) in enumerate(zip(self._stores, self._readers, strict=True)):
            with _of(member):
                _, entry = reader.find(number, store.sizes[number])
                if entry.codes_crc != store.record(store.ids[number]):
                    raise ChunkError("is another's (its checksum is not that of the done record)")


class _Run:
    """A run of images that lie in the same chunks, and in arrays what a blend asks of each of them (axis 0).

    first: number of the first image. fits: (n,) whether every member has it, in its size and with the codes of its done
    record.
    """

    def __init__(self, stores: Sequence[ProbabilityStore], readers: Sequence[PackedReader], number: int) -> None:
        self.first = max(number // reader.images * reader.images for reader in readers)
        end = min(len(stores[0].ids), *((number // reader.images + 1) * reader.images for reader in readers))
        self.chunks, tables, octets = [], [], []
        for member, reader in enumerate(readers):
            with _of(member):
                chunk = reader.chunk(number // reader.images)
            begin = self.first % reader.images
            self.chunks.append(chunk)
            tables.append(chunk.table[begin : begin + end - self.first])
            octets.append(chunk.hot_octets[begin : begin + end - self.first])
        self._steps = [reader.images for reader in readers]
        self._handles = np.array([chunk.handle for chunk in self.chunks], np.int64)
        self.fits = self._fits(stores, tables, slice(self.first, end))
        self._places, sizes, self._words, self._cold_places, self._colds = (
            np.stack([table[name] for table in tables], axis=1).astype(np.int64)
            for name in ("hot_at", "hot_size", "words", "cold_at", "colds")
        )
        self._crcs = np.stack([table["hot_crc"] for table in tables], axis=1)
        self._begins = _running(sizes)
        self._starts = _running(-(-np.stack(octets, axis=1) // 8))

    @staticmethod
    def _fits(stores: Sequence[ProbabilityStore], tables: Sequence[Any], images: slice) -> NDArray[np.bool_]:
        size = np.array(stores[0].sizes[images])
        found: NDArray[np.bool_] = np.ones(len(size), np.bool_)
        for store, table in zip(stores, tables, strict=True):
            found &= (table["height"] == size[:, 0]) & (table["width"] == size[:, 1])
            found &= store.records[images] == (np.uint64(1 << 32) | table["codes_crc"].astype(np.uint64))
        return found

    def entry(self, member: int, number: int) -> Entry:
        """That of an image that fits."""
        entry = self.chunks[member].images[number % self._steps[member]]
        assert entry is not None
        return entry

    def parts(self, number: int) -> HotParts:
        """The hot parts of an image."""
        at = number - self.first
        hot = (self._places, self._begins, self._crcs, self._starts, self._words)
        columns = (*hot, self._cold_places, self._colds)
        return HotParts(self._handles, *(column[at] for column in columns))


class _MemberError(Exception):
    """What is wrong with the chunk of one member."""

    def __init__(self, member: int, reason: ChunkError) -> None:
        super().__init__(member, reason)
        self.member, self.reason = member, reason


@contextmanager
def _of(member: int) -> Iterator[None]:
    """Says of which member's chunk an error is."""
    try:
        yield
    except ChunkError as error:
        raise _MemberError(member, error) from error


def _running(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, M) lengths to (n, M + 1) sums of those before, the last of all."""
    sums: NDArray[np.int64] = np.zeros((len(lengths), lengths.shape[1] + 1), np.int64)
    np.cumsum(lengths, axis=1, out=sums[:, 1:])
    return sums
