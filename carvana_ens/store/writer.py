"""Writing probability stores: first an image's chunk, then its done record, under the store's lock."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from carvana_ens.errors import StoreError
from carvana_ens.store.place import Place, place_of
from carvana_ens.store.schema import DONE, DONE_CHUNK, FULL_SCALE, DType, Provenance, attributes
from carvana_ens.store.store import ProbabilityStore, checksum
from carvana_ens.types import Codes, ProbabilityMap, Size

UNFINISHED = "carvana_ens_unfinished"
"""Attribute of a group that is still being made."""
HANDS = 2
"""Threads that a writer compresses and writes with."""


def quantise(values: ProbabilityMap, dtype: DType) -> Codes:
    """Codes of a map: rint(S p) in float32, half to even; S = 255 (uint8) or 65535 (uint16).

    values: (h, w) float32 in [0, 1].

    Raises:
        StoreError: a value is outside [0, 1] or not a number.
    """
    if values.ndim != 2 or values.dtype != np.float32:
        raise StoreError(f"a probability map must be float32 (H, W), got {values.dtype} {values.shape}")
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= 1):
        raise StoreError(f"a probability map must lie in [0, 1], got values from {low} to {high}")
    codes: Codes = np.rint(values * np.float32(FULL_SCALE[dtype])).astype(dtype)
    return codes


class StoreWriter:
    """Opens the store at ``path`` for writing, or makes it; a context manager that holds the store's lock.

    path: a folder, or an address (``s3://bucket/name.zarr``, with the extra ``[s3]``). An existing store is continued:
    its ids, sizes, dtype and provenance must be the same. One writer object may be used from several threads.
    """

    def __init__(
        self,
        path: str | Path,
        ids: Sequence[str],
        sizes: Sequence[Size],
        provenance: Provenance,
        dtype: DType = "uint8",
    ) -> None:
        self.path = path
        self._place = place_of(path)
        self._ids, self._sizes, self._provenance, self._dtype = tuple(ids), tuple(sizes), provenance, dtype
        self._lock = self._place.lock()
        self._writing = threading.Lock()
        self._hands = ThreadPoolExecutor(HANDS, "store-writer")

    def __enter__(self) -> StoreWriter:
        """Takes the lock, and makes or continues the store.

        Raises:
            StoreError: another process writes the store, or what is there came from something else.
        """
        self._lock.__enter__()
        try:
            if not _is_made(self._place):
                _create(self._place, self._ids, self._sizes, self._provenance, self._dtype)
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
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
        group = zarr.open_group(self._place.zarr(read_only=False), mode="r+", zarr_format=3)
        if changed:
            group.attrs.update(attributes(self._ids, self._dtype, self._provenance))
        self._packed = store.packed is not None
        self._prob: Any = _array(group, "prob")
        self._done: Any = _array(group, "done")
        self._records = store.records.copy()
        self._index = store.index
        self._shape = store.shape

    def missing(self) -> list[str]:
        """Ids that have no map yet, in order."""
        return [self._ids[number] for number in np.flatnonzero(self._records == 0)]

    def write(self, image_id: str, values: ProbabilityMap) -> None:
        """Quantises and writes one map. values: (h, w) float32 in [0, 1], at the image's true size.

        Raises:
            StoreError: the map does not fit the image, or has values outside [0, 1].
        """
        try:
            codes = quantise(values, self._dtype)
        except StoreError as error:
            raise StoreError(f"{self.path}, image {image_id}: {error}") from error
        self.write_codes(image_id, codes)

    def write_codes(self, image_id: str, codes: Codes) -> None:
        """Writes one map given as codes, (h, w) of the store's dtype.

        Raises:
            StoreError: unknown id, a map of another size or dtype, or the store is packed.
        """
        if self._packed:
            raise StoreError(
                f"{self.path} is packed, and packed stores are not written: carvana-ens export makes a plain one of it"
            )
        number = self._index.get(image_id)
        if number is None:
            raise StoreError(f"{self.path} has no image {image_id!r}")
        size = self._sizes[number]
        if codes.shape != size or codes.dtype != np.dtype(self._dtype):
            got = f"{codes.dtype} {Size(*codes.shape)}" if codes.ndim == 2 else f"{codes.dtype} {codes.shape}"
            raise StoreError(f"{self.path}: the map of {image_id} is {got}, expected {self._dtype} {size}")
        padded = codes
        if size != self._shape[1:]:
            padded = np.zeros(self._shape[1:], dtype=codes.dtype)
            padded[: size.height, : size.width] = codes
        # In a thread of its own, so that Ctrl-C reaches the caller between two images and never tears one in half.
        self._hands.submit(self._put, number, padded, codes).result()

    def _put(self, number: int, padded: Codes, codes: Codes) -> None:
        self._prob[number] = padded
        with self._writing:
            self._records[number] = DONE | np.uint64(checksum(codes))
            first = number // DONE_CHUNK * DONE_CHUNK
            last = min(first + DONE_CHUNK, len(self._ids))
            self._done[first:last] = self._records[first:last]


def _is_made(place: Place) -> bool:
    """Whether anything lies there but what a stop left of a store in the making."""
    metadata = place.get("zarr.json")
    try:
        return metadata is not None and UNFINISHED not in json.loads(metadata)["attributes"]
    except (ValueError, KeyError, TypeError):
        return True  # not ours to make anew: opening it says what is wrong


def _anew(path: str | Path) -> str:
    return f"remove {path} or use --fresh to make it anew"


def _array(group: zarr.Group, name: str) -> Any:
    array: Any = group[name]
    # an all-zero map must leave a chunk behind, or it could not be told from a lost one; not stored with the array
    return array.with_config({"write_empty_chunks": True})


def _create(place: Place, ids: Sequence[str], sizes: Sequence[Size], provenance: Provenance, dtype: DType) -> None:
    """Makes an empty store; a stop leaves a whole one, or none that can be opened."""
    if not ids or len(ids) != len(sizes) or len(set(ids)) != len(ids):
        raise StoreError(f"{place}: a store needs at least one image, unique ids and one size each, got {len(ids)} ids")
    count = len(ids)
    height = max(size.height for size in sizes)
    width = max(size.width for size in sizes)
    little = BytesCodec(endian="little")

    def fill(where: Any) -> None:
        # the mark is taken away last: until then the store is not there for readers, and is made anew by writers
        group = zarr.create_group(where, zarr_format=3, attributes={UNFINISHED: True}, overwrite=True)
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
        group.attrs.put(attributes(ids, dtype, provenance))

    place.create(fill)
