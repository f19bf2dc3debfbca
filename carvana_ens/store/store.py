"""Reading probability stores: what a store says of itself, and the maps of its images one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from carvana_ens.errors import StoreError, UsageError
from carvana_ens.files import digest
from carvana_ens.store.arrays import open_arrays, read_arrays
from carvana_ens.store.chunks import ChunkError, DirectReader, Reader
from carvana_ens.store.foreign import ZarrReader
from carvana_ens.store.packed_reader import PackedReader, is_packed
from carvana_ens.store.place import Place, place_of
from carvana_ens.store.schema import FULL_SCALE, DType, Provenance, check_arrays, check_attributes, ids_digest
from carvana_ens.types import Codes, Size


def checksum(codes: Codes) -> int:
    """crc32 of an image's codes, row-major, little-endian."""
    return int(isal_zlib.crc32(np.ascontiguousarray(codes).data))  # eight times as fast as zlib's


class ProbabilityStore:
    """The maps of one member and split, read image by image.

    ids: N image ids in their order. sizes: true Size of each. dtype: "uint8" or "uint16"; full_scale: the code of
    probability 1. shape: (N, H, W) of the array, as large as the largest image. provenance: where the maps come from.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens a store for reading and checks its schema and layout. path: a folder or an address (s3://...).

        Raises:
            StoreError: there is no store at ``path``, or it is not one that we may read.
        """
        self.path = path
        self._place = place_of(path)
        attributes, arrays, self._metadata = open_arrays(self._place)
        ours = check_attributes(str(path), attributes)
        self.dtype: DType = check_arrays(str(path), arrays)
        self.full_scale = FULL_SCALE[self.dtype]
        self.shape: tuple[int, int, int] = arrays["prob"].shape
        self.provenance = Provenance.from_json(ours["provenance"])
        self._reader = _reader(self._place, arrays["prob"])
        self._done = arrays["done"]
        ids, sizes = read_arrays(self._place, arrays["ids"], arrays["sizes"])
        self.ids = tuple(str(image_id) for image_id in ids)
        if ids_digest(self.ids) != ours["ids_sha256"] or len(set(self.ids)) != len(self.ids):
            raise StoreError(f"{path}: the image ids do not match their hash: predict or import it again")
        if not (np.all(sizes >= 1) and np.all(sizes <= np.array(self.shape[1:]))):
            raise StoreError(f"{path}: a true size is outside {self.shape[1]}x{self.shape[2]}: predict or import again")
        self.sizes = tuple(map(Size._make, sizes.tolist()))
        self.index = {image_id: number for number, image_id in enumerate(self.ids)}

    @cached_property
    def records(self) -> NDArray[np.uint64]:
        """(N,) done records as they were when first asked for: 0, or 2**32 | crc32 of the codes."""
        records: NDArray[np.uint64] = read_arrays(self._place, self._done)[0]
        return records

    def missing(self) -> list[str]:
        """Ids that have no map yet, in order."""
        return [self.ids[number] for number in np.flatnonzero(self.records == 0)]

    def require_complete(self) -> None:
        """Refuses a store that is not finished.

        Raises:
            StoreError: a map is missing; names the first.
        """
        missing = self.missing()
        if missing:
            raise StoreError(
                f"{self.path} lacks {len(missing)} of {len(self.ids)} maps, first {missing[0]}: "
                f"run predict (or import) again to finish it"
            )

    def fingerprint(self) -> str:
        """sha256 (hex) over provenance, ids and every image's checksum: another map, another fingerprint."""
        records = self.records.astype("<u8").tobytes().hex()
        return digest({"provenance": self.provenance.to_json(), "ids": list(self.ids), "records": records})

    def read(self, image_id: str) -> Codes:
        """(h, w) codes of one image, at its true size.

        Raises:
            StoreError: unknown id, no map yet, or a chunk that is gone or damaged; names the id.
        """
        codes: Codes = np.empty(self.sizes[self._number(image_id)], self.dtype)
        self.read_into(image_id, codes)
        return codes

    def read_into(self, image_id: str, out: Codes) -> None:
        """Reads one image into an array of the caller's, (h, w) at its true size, C-contiguous, of the store's dtype.

        Raises:
            StoreError: as ``read`` does; what is in ``out`` then means nothing.
            UsageError: an array of another shape or dtype.
        """
        self.begin(image_id, out)()

    def begin(self, image_id: str, out: Codes) -> Callable[[], None]:
        """The first half of ``read_into``: what is stored is read and checked; the function returned does the rest.

        To be called by the same thread before it begins another image of this store. Beginning with an image in many
        stores and then decoding all is faster than one after the other: decoding empties the processor's cache of
        what Python and the file system work on. Raises what ``read_into`` raises, now or in the rest.
        """
        number = self._number(image_id)
        if out.shape != self.sizes[number] or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise UsageError(
                f"{self.path}: {image_id} cannot be read into {out.dtype} {out.shape}: give a C-contiguous "
                f"{self.dtype} {tuple(self.sizes[number])}"
            )
        if self.records[number] == 0:
            raise StoreError(f"{self.path} has no map of {image_id} yet: run predict (or import) again")
        rest: Callable[[], None] = partial(self._reader.read_into, number, out)
        if isinstance(self._reader, DirectReader):
            try:
                rest = self._reader.begin(number, out)
            except ChunkError as error:
                raise self.explain(image_id, error) from error
        return partial(self._finish, image_id, rest, out)

    def _finish(self, image_id: str, rest: Callable[[], None], out: Codes) -> None:
        try:
            rest()
        except ChunkError as error:
            raise self.explain(image_id, error) from error
        if not self._reader.checked:
            self._check_record(image_id, out)

    @property
    def packed(self) -> PackedReader | None:
        """Gives the parts of a packed store one by one, by number of the image; None where the store is not packed."""
        return self._reader if isinstance(self._reader, PackedReader) else None

    @property
    def direct(self) -> bool:
        """Whether chunks lie as ``chunk_of`` makes them, one image a file."""
        return isinstance(self._reader, DirectReader)

    def explain(self, image_id: str, error: ChunkError) -> StoreError:
        """What a reader found, with store, image and what to do."""
        cure = f": {self._cure()}" if error.cure else ""
        if error.cure and self._changed():
            cure = ": the store was packed or made anew meanwhile, run the command again"
        return StoreError(f"{self.path}: the chunk of {image_id} {error}{cure}")

    def document(self, key: str) -> bytes | None:
        """What lies under a key of the store now, such as ``prob/zarr.json``; None where there is nothing."""
        return self._place.get(key)

    def _changed(self) -> bool:
        """Whether ``prob`` was laid out otherwise since this store was opened."""
        with suppress(OSError, StoreError):
            return self._place.get("prob/zarr.json") not in (self._metadata, None)
        return False

    def record(self, image_id: str) -> int | None:
        """crc32 of an image's codes (row-major, true size) as its done record has it; None while it has no map."""
        record = int(self.records[self._number(image_id)])
        return record & 0xFFFFFFFF if record else None

    def _number(self, image_id: str) -> int:
        number = self.index.get(image_id)
        if number is None:
            raise StoreError(f"{self.path} has no image {image_id!r}: see its ids with carvana-ens status")
        return number

    def _check_record(self, image_id: str, codes: Codes) -> None:
        record = int(self.records[self.index[image_id]])
        if record >> 32 != 1 or record & 0xFFFFFFFF != checksum(codes):
            raise StoreError(f"{self.path}: the map of {image_id} differs from its done record: {self._cure()}")

    def _cure(self) -> str:
        return "delete the store and predict (or import) it again"

    def damage(self, image_id: str) -> str | None:
        """What is wrong with one image's map, read and compared with its done record; None when nothing is."""
        try:
            self._check_record(image_id, self.read(image_id))
        except StoreError as error:
            return str(error)
        return None


def _reader(place: Place, prob: Any) -> Reader:
    """Our own where the layout is ours, else zarr's."""
    names = [codec.to_dict()["name"] for codec in prob.metadata.codecs]
    keys = prob.metadata.chunk_key_encoding.to_dict()
    little = prob.metadata.codecs[0].to_dict().get("configuration", {}).get("endian") != "big"
    ours = names == ["bytes", "zstd", "crc32c"] and little and prob.chunks == (1, *prob.shape[1:])
    if ours and keys == {"name": "default", "configuration": {"separator": "/"}}:
        return DirectReader(place, prob.shape[1:], str(prob.dtype))
    if is_packed(prob):
        return PackedReader(place, Size(*prob.shape[1:]), prob.chunks[0], prob.dtype.name)
    return ZarrReader(str(place), prob)


def open_store(path: str | Path) -> ProbabilityStore:
    """Opens a probability store for reading: a folder, or with the extra ``[s3]`` an address (``s3://bucket/a.zarr``).

    Raises:
        StoreError: there is no store at ``path``, or it is not one that we may read.
        UsageError: an address that means nothing, or the extra is not installed.
    """
    return ProbabilityStore(path)
