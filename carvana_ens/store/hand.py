"""The chunks of maps: written by the process that holds a store's lock, or by others that it names itself to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr

from carvana_ens.errors import StoreError, first_line
from carvana_ens.store.chunks import chunk_of
from carvana_ens.store.place import Folder, Place, place_of
from carvana_ens.store.schema import FULL_SCALE, DType
from carvana_ens.store.store import ProbabilityStore, checksum
from carvana_ens.types import Codes, ProbabilityMap, Size


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


class StoreHand:
    """Writes chunks of an open store and nothing else: done records are its writer's, who holds the lock.

    May be used from several threads.
    """

    def __init__(self, store: ProbabilityStore, token: str | None = None) -> None:
        """token: of the writer that this works for in another process; each map is refused once it is not at work."""
        self._store, self._token = store, token
        self._place = place_of(store.path)
        group = zarr.open_group(self._place.zarr(read_only=False), mode="r+", zarr_format=3)
        self._prob = array_of(group, "prob")

    def write(self, image_id: str, values: ProbabilityMap) -> int:
        """Quantises and writes one map; gives the checksum for its done record.

        values: (h, w) float32 in [0, 1], at the image's true size.

        Raises:
            StoreError: the map does not fit the image, or has values outside [0, 1]; or what ``put`` raises.
        """
        return self.write_codes(image_id, self.codes(image_id, values))

    def write_codes(self, image_id: str, codes: Codes) -> int:
        """Writes one map given as codes, (h, w) of the store's dtype; gives the checksum for its done record.

        Raises:
            StoreError: the codes do not fit the image; or what ``put`` raises.
        """
        self.check(image_id, codes)
        return self.put(image_id, codes)

    def codes(self, image_id: str, values: ProbabilityMap) -> Codes:
        """The codes of a map; StoreError where it cannot be one."""
        try:
            return quantise(values, self._store.dtype)
        except StoreError as error:
            raise StoreError(f"{self._store.path}, image {image_id}: {error}") from error

    def check(self, image_id: str, codes: Codes) -> None:
        """Refuses what cannot be written, with a StoreError: an unknown id, another size or dtype, a packed store."""
        store = self._store
        if store.packed is not None:
            raise StoreError(
                f"{store.path} is packed, and packed stores are not written: carvana-ens export makes a plain one of it"
            )
        number = store.index.get(image_id)
        if number is None:
            raise StoreError(f"{store.path} has no image {image_id!r}")
        size = store.sizes[number]
        if codes.shape != size or codes.dtype != np.dtype(store.dtype):
            got = f"{codes.dtype} {Size(*codes.shape)}" if codes.ndim == 2 else f"{codes.dtype} {codes.shape}"
            raise StoreError(f"{store.path}: the map of {image_id} is {got}, expected {store.dtype} {size}")

    def put(self, image_id: str, codes: Codes) -> int:
        """Writes the chunk of a map that was checked; gives the checksum for its done record.

        Raises:
            StoreError: the writer that this works for is not at work any more, or the disk is full or read-only.
        """
        if self._token is not None and self._place.writer() != self._token:
            raise StoreError(
                f"{self._store.path} is not being written by the process that sent this work: it has ended, or this "
                f"machine has another folder under that path"
            )
        number = self._store.index[image_id]
        padded = codes
        if codes.shape != self._store.shape[1:]:
            padded = np.zeros(self._store.shape[1:], dtype=codes.dtype)
            padded[: codes.shape[0], : codes.shape[1]] = codes
        with writable(self._place, f"the map of {image_id}"):
            if self._store.direct and isinstance(self._place, Folder):
                # zarr's way to the same bytes costs as much again as compressing them
                self._place.put(f"prob/c/{number}/0/0", chunk_of(padded))
            else:
                self._prob[number] = padded
        return checksum(codes)


@contextmanager
def writable(place: Place, what: str) -> Iterator[None]:
    """Says what could not be written, where, and that nothing finished is lost.

    Raises:
        StoreError: in place of what says that the disk is full, the server gone, and the like.
    """
    try:
        yield
    except Exception as error:
        if not place.out_of_reach(error):
            raise
        raise StoreError(
            f"{place}: {what} cannot be written: {getattr(error, 'strerror', None) or first_line(error)}; what is done "
            f"is kept, and the same command goes on from there"
        ) from error


def array_of(group: zarr.Group, name: str) -> Any:
    """An array of a store's group for writing: all-zero chunks are written too, see StoreHand."""
    array: Any = group[name]
    # an all-zero map must leave a chunk behind, or it could not be told from a lost one; not stored with the array
    return array.with_config({"write_empty_chunks": True})
