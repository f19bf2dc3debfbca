"""Maps in a layout that we do not write, read through zarr's own indexing.

zarr reads zeros where a chunk is missing, and decodes whatever a chunk holds. So the stored bytes are looked at first:
whether they are there, in a shard as well, and whether they decode to no more than a chunk should hold.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from carvana_ens.errors import StoreError, first_line
from carvana_ens.store.chunks import CHECKSUM, ChunkError, frame_size, gone
from carvana_ens.store.schema import MAX_PIXELS
from carvana_ens.types import Codes, Json

_NO_CHUNK = 2**64 - 1
"""Offset and length of a chunk that a shard does not hold (zarr v3 specification, sharding codec)."""


def _gzip_size(content: bytes, bound: int) -> int:
    return len(gzip.GzipFile(fileobj=io.BytesIO(content)).read(bound + 1))


def _zstd_size(content: bytes, bound: int) -> int:  # noqa: ARG001
    size = frame_size(content[:18])
    if size is None:
        raise ChunkError("does not decode (its zstd frame does not say how much it holds)")
    return size


def _blosc_size(content: bytes, bound: int) -> int:  # noqa: ARG001
    return int.from_bytes(content[4:8], "little")  # nbytes of the blosc 1 header


_SIZES: Mapping[str, Callable[[bytes, int], int]] = {"blosc": _blosc_size, "gzip": _gzip_size, "zstd": _zstd_size}
"""By compressor: bytes that content decodes to, found without holding more than bound of them."""


_INDEX_CODECS = (["bytes"], ["bytes", "crc32c"])
"""Of a shard's index: those that leave its length known."""


class ZarrReader:
    """Reads one or several whole images a chunk, sharded or not, through codecs whose results can be bounded.

    Codes are not checked here: most codecs notice no flipped bit, so the store compares the done record's checksum.
    """

    checked = False

    def __init__(self, place: str, prob: Any) -> None:
        """prob: the zarr array, (N, H, W), of a shape that a store may have.

        Raises:
            StoreError: chunks of parts of images or too large to be decoded for one image, or codecs without a bound.
        """
        self._array = prob
        self._images, *inside = prob.chunks
        self._shard_images, *within = prob.shards or prob.chunks
        if not (tuple(inside) == tuple(within) == prob.shape[1:]) or math.prod(prob.chunks) > MAX_PIXELS:
            raise StoreError(
                f"{place}: prob has shape {prob.shape} in chunks {prob.chunks}, expected one or a few whole images a "
                f"chunk: rewrite it so"
            )
        codecs: list[Json] = [codec.to_dict() for codec in prob.metadata.codecs]
        names = _names(codecs)
        self._shards: Mapping[str, Json] | None = None
        if names == ["sharding_indexed"] and _names(codecs[0]["configuration"]["index_codecs"]) in _INDEX_CODECS:
            self._shards = codecs[0]["configuration"]
            names = _names(self._shards["codecs"])
        while names[:1] == ["transpose"]:
            del names[0]
        self._packers = names[1:]
        compressors = [name for name in self._packers if name != "crc32c"]
        if names[:1] != ["bytes"] or not set(compressors) <= _SIZES.keys() or len(compressors) > 1:
            raise StoreError(
                f"{place}: prob has codecs {', '.join(names)}, expected bytes, at most one of {', '.join(_SIZES)}, and "
                f"crc32c: rewrite it so"
            )
        self._bound = math.prod(prob.chunks) * prob.dtype.itemsize + CHECKSUM * len(names)
        """Bytes that a chunk may decode to, crc32c inside a compressor included."""

    def read_into(self, number: int, out: Codes) -> None:
        """See chunks.Reader."""
        try:
            self._check(self._stored(number))
            codes = self._array[number]
        except ChunkError:
            raise
        except Exception as error:  # zarr and its codecs raise many kinds
            raise ChunkError(f"does not decode ({first_line(error)})") from error
        np.copyto(out, codes[: out.shape[0], : out.shape[1]])

    def _check(self, content: bytes) -> None:
        """Refuses bytes that would decode to more than a chunk holds."""
        for name in reversed(self._packers):
            if name == "crc32c":
                content = content[:-CHECKSUM]
            elif _SIZES[name](content, self._bound) > self._bound:
                raise ChunkError("does not decode (it holds more than a chunk of this store)")

    def _stored(self, number: int) -> bytes:
        """The bytes of the chunk that the image is in."""
        key = self._array.metadata.encode_chunk_key((number // self._shard_images, 0, 0))
        chunks = self._shard_images // self._images
        longest = self._bound + self._bound // 8 + 1024  # of a chunk: compressors may add a little
        try:
            length = sync(self._array.store_path.store.getsize(f"{self._array.path}/{key}"))
        except FileNotFoundError:
            raise gone() from None
        if length > chunks * (longest + 16) + CHECKSUM:
            raise ChunkError("does not decode (longer than any chunk of this store)")
        if self._shards is None:
            return self._get(key)
        start, length = self._entry(key, self._shards, chunks, number % self._shard_images // self._images)
        if start == length == _NO_CHUNK:
            raise gone()
        if length > longest:
            raise ChunkError("does not decode (longer than any chunk of this store)")
        return self._get(key, RangeByteRequest(start, start + length))

    def _entry(self, key: str, shards: Mapping[str, Json], chunks: int, which: int) -> tuple[int, int]:
        """(offset, length) of one chunk in a shard, from the index of all its chunks; zarr checks its crc32c."""
        order, *checked = shards["index_codecs"]
        size = 16 * chunks + CHECKSUM * len(checked)
        at_end = shards["index_location"] == "end"
        index = self._get(key, SuffixByteRequest(size) if at_end else RangeByteRequest(0, size))
        start, length = np.frombuffer(
            index, np.dtype("u8").newbyteorder(order["configuration"]["endian"]), 2, 16 * which
        )
        return int(start), int(length)

    def _get(self, key: str, part: ByteRequest | None = None) -> bytes:
        found = sync(self._array.store_path.store.get(f"{self._array.path}/{key}", default_buffer_prototype(), part))
        return b"" if found is None else found.to_bytes()


def _names(codecs: Sequence[Mapping[str, Json]]) -> list[str]:
    return [codec["name"] for codec in codecs]
