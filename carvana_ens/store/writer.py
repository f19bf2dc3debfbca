"""Writing probability stores: first an image's chunk, then its done record, under the store's lock."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from carvana_ens.errors import StoreError
from carvana_ens.store.documents import DONE_DOCUMENT, GROUP, documents, group_document, records_document
from carvana_ens.store.hand import StoreHand, array_of, writable
from carvana_ens.store.place import UNFINISHED, Place, Where, is_address, is_made, place_of
from carvana_ens.store.prints import UNKNOWN, Print, Prints, put_records
from carvana_ens.store.schema import DONE, DONE_CHUNK, DType, Provenance, attributes
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Codes, ProbabilityMap, Size

LEAST = 0.005
"""Of the size of a map's codes: what networks' maps take at least when they are compressed."""
SAMPLE = 16
"""Maps whose size says how large the others will be."""
HANDS = 2
"""Threads that a writer compresses and writes with."""


class StoreWriter:
    """Opens the store at ``path`` for writing, or makes it; a context manager that holds the store's lock.

    path: a folder, or an address (``s3://bucket/name.zarr``, with the extra ``[s3]``). An existing store is continued:
    its ids, sizes, dtype and provenance must be the same. One writer object may be used from several threads.

    token: names this writer to processes that write chunks for it (``StoreHand``); what they have written counts once
    its checksums are handed to ``record``.

    photo: gives the fingerprint of an image's photo, which is asked, and written, before its map is recorded as done;
    None where maps are not made of photos.
    """

    def __init__(
        self,
        path: Where,
        ids: Sequence[str],
        sizes: Sequence[Size],
        provenance: Provenance,
        dtype: DType = "uint8",
    ) -> None:
        self.path = path
        self._place = place_of(path)
        self._ids, self._sizes, self._provenance, self._dtype = tuple(ids), tuple(sizes), provenance, dtype
        self.token = uuid.uuid4().hex
        self._lock = self._place.lock(self.token)
        self._writing = threading.Lock()
        self.photo: Print | None = None
        self._hands = ThreadPoolExecutor(HANDS, "store-writer")

    def __enter__(self) -> StoreWriter:
        """Takes the lock, and makes or continues the store.

        Raises:
            StoreError: another process writes the store, or what is there came from something else.
        """
        self._lock.__enter__()
        try:
            if not is_made(self._place.get("zarr.json")):
                _create(self._place, self._ids, self._sizes, self._provenance, self._dtype)
            self._open()
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hands.shutdown(wait=True)
        self._lock.__exit__(kind, error, trace)

    def _open(self) -> None:
        store = ProbabilityStore(self.path)
        if store.ids != self._ids or store.sizes != self._sizes:
            raise StoreError(f"{self.path} was made for other images: {_anew(self.path)}")
        changed = store.provenance.differences(self._provenance)
        if store.dtype != self._dtype:
            changed.append("dtype")
        fulfils = self._provenance.fulfils(store.provenance)
        if changed and not (changed == ["checkpoints"] and fulfils):
            raise StoreError(f"{self.path} was made with another {', '.join(changed)}: {_anew(self.path)}")
        if changed:
            self._place.put(GROUP, group_document(attributes(self._ids, self._dtype, self._provenance)))
        self._hand = StoreHand(store)
        self._done: Any = None
        if store.document(DONE_DOCUMENT) != records_document(len(self._ids)):  # laid out by another program
            group = zarr.open_group(self._place.zarr(read_only=False), mode="r+", zarr_format=3)
            self._done = array_of(group, "done")
        self._records = store.records.copy()
        self._index = store.index
        self._prints = Prints(self._place, len(self._ids))
        self.packed = store.packed is not None
        self._require_space(store)

    def _require_space(self, store: ProbabilityStore) -> None:
        """Refuses work that cannot end: less room than the maps to come take, judged by those that are there.

        Raises:
            StoreError: says how much is needed.
        """
        missing, free = len(self.missing()), self._place.free()
        if free is None or not missing:
            return
        done = np.flatnonzero(self._records)[:: max(1, (len(self._ids) - missing) // SAMPLE)][:SAMPLE]
        sizes = [len(self._place.get(f"prob/c/{number}/0/0") or b"") for number in done]
        raw = int(np.prod(store.shape[1:])) * np.dtype(self._dtype).itemsize
        needed = int(missing * (np.mean(sizes) if sizes else LEAST * raw))
        if free < needed:
            raise StoreError(
                f"{self.path} needs {needed / 1e6:,.1f} MB more at least, for {missing} maps, and {free / 1e6:,.1f} MB "
                f"are free: make room, or move the project"
            )

    def missing(self) -> list[str]:
        """Ids that have no map yet, in order."""
        return [self._ids[number] for number in np.flatnonzero(self._records == 0)]

    def prints(self) -> dict[str, int]:
        """Fingerprints of the photos that maps were made of, by id, for maps that are done; without unknown ones."""
        known = np.flatnonzero((self._records != 0) & (self._prints.values != UNKNOWN))
        return {self._ids[number]: int(self._prints.values[number]) for number in known}

    def write(self, image_id: str, values: ProbabilityMap) -> None:
        """Quantises and writes one map. values: (h, w) float32 in [0, 1], at the image's true size.

        Raises:
            StoreError: the map does not fit the image, or has values outside [0, 1].
        """
        self.write_codes(image_id, self._hand.codes(image_id, values))

    def write_codes(self, image_id: str, codes: Codes) -> None:
        """Writes one map given as codes, (h, w) of the store's dtype.

        Raises:
            StoreError: unknown id, a map of another size or dtype, or the store is packed.
        """
        self._hand.check(image_id, codes)
        # In a thread of its own, so that Ctrl-C reaches the caller between two images and never tears one in half.
        self._hands.submit(self._put, image_id, codes).result()

    def record(self, checksums: Iterable[tuple[str, int]]) -> None:
        """Records maps as done whose chunks were written for this writer: (id, checksum) as ``StoreHand`` gave it."""
        self._hands.submit(self._record, list(checksums)).result()

    def forget(self, image_ids: Iterable[str]) -> None:
        """Takes done records back: these maps are missing from then on.

        Raises:
            StoreError: an unknown id.
        """
        numbers = {}
        for image_id in image_ids:
            if image_id not in self._index:
                raise StoreError(f"{self.path} has no image {image_id!r}")
            numbers[self._index[image_id]] = np.uint64(0)
        self._hands.submit(self._set, numbers).result()

    def _put(self, image_id: str, codes: Codes) -> None:
        self._record([(image_id, self._hand.put(image_id, codes))])

    def _record(self, checksums: Sequence[tuple[str, int]]) -> None:
        if self.photo is not None and checksums:
            prints = {self._index[image_id]: self.photo(image_id) for image_id, _ in checksums}
            with self._writing, writable(self._place, "the fingerprints of photos"):
                self._prints.put(prints)
        self._set({self._index[image_id]: DONE | np.uint64(checksum) for image_id, checksum in checksums})

    def _set(self, records: Mapping[int, np.uint64]) -> None:
        """Writes done records by number of the image."""
        if is_address(self.path) and self._place.writer() != self.token:
            raise StoreError(
                f"{self.path} is not locked by this process any more: somebody took its lock (--break-lock); what is "
                f"done is kept"
            )
        with self._writing, writable(self._place, "done records"):
            for number, record in records.items():
                self._records[number] = record
            for first in sorted({number // DONE_CHUNK * DONE_CHUNK for number in records}):
                if self._done is None:
                    put_records(self._place, "done", self._records, first)
                else:
                    last = min(first + DONE_CHUNK, len(self._ids))
                    self._done[first:last] = self._records[first:last]


def _anew(path: Where) -> str:
    return f"remove {path} or use --fresh to make it anew"


def _create(place: Place, ids: Sequence[str], sizes: Sequence[Size], provenance: Provenance, dtype: DType) -> None:
    """Makes an empty store; a stop leaves a whole one, or none that can be opened."""
    if not ids or len(ids) != len(sizes) or len(set(ids)) != len(ids):
        raise StoreError(f"{place}: a store needs at least one image, unique ids and one size each, got {len(ids)} ids")
    count = len(ids)
    height = max(size.height for size in sizes)
    width = max(size.width for size in sizes)
    little = BytesCodec(endian="little")
    about = attributes(ids, dtype, provenance)

    def fill(where: Any) -> None:
        # the mark is taken away last: until then the store is not there for readers, and is made anew by writers
        group = zarr.create_group(where, zarr_format=3, attributes={UNFINISHED: True})
        group.create_array(
            "prob",
            shape=(count, height, width),
            chunks=(1, height, width),
            dtype=dtype,
            serializer=little if dtype == "uint16" else BytesCodec(endian=None),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            fill_value=0,
            dimension_names=("image", "y", "x"),
        )
        group.create_array(
            "done",
            shape=(count,),
            chunks=(min(DONE_CHUNK, count),),
            dtype="uint64",
            serializer=little,
            compressors=[Crc32cCodec()],
            fill_value=0,
        )
        packed = [ZstdCodec(), Crc32cCodec()]
        texts = group.create_array("ids", shape=(count,), chunks=(count,), dtype="str", compressors=packed)
        texts[:] = np.array(ids, dtype=object)
        table = group.create_array(
            "sizes",
            shape=(count, 2),
            chunks=(count, 2),
            dtype="uint32",
            serializer=little,
            compressors=packed,
            fill_value=0,
        )
        table[:] = np.array(sizes, dtype=np.uint32)
        group.attrs.put(about)

    place.create(fill)
    for key, content in {GROUP: group_document(about), **documents((count, height, width), dtype)}.items():
        if place.get(key) != content:
            place.put(key, content)  # another zarr may write it otherwise
