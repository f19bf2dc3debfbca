"""The codec ``carvana_ens.packed`` for zarr: where we are installed, whatever uses zarr-python reads packed stores.

Registered under the entry-point group ``zarr.codecs``. It turns a chunk (images, H, W) of uint8 or uint16 into the file
that ``packed_chunk.py`` describes, and reads single images of it. Images are written at the size of the array.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import RangeByteRequest
from zarr.registry import register_codec

from carvana_ens.store.chunks import ChunkError
from carvana_ens.store.packed_chunk import PackedChunk, assemble, encode
from carvana_ens.types import Codes, Size

CODEC = "carvana_ens.packed"


class _Hands:
    """Threads that decode chunks while they wait for zarr's reads: on the loop's own, which these need, all would wait.

    A forked child has none of its parent's threads, and gets a pool of its own.
    """

    def __init__(self) -> None:
        self.start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.start)

    def start(self) -> None:
        self.pool = ThreadPoolExecutor(thread_name_prefix=CODEC)


_hands = _Hands()


@dataclass(frozen=True)
class PackedCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """See the module; it has no configuration."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PackedCodec:  # noqa: ARG003
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"name": CODEC}

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:  # noqa: ARG002
        """Refuses arrays that are no maps, when one is made or opened."""
        native = dtype.to_native_dtype()
        if len(shape) != 3 or native.name not in {"uint8", "uint16"}:
            raise ValueError(f"{CODEC} holds uint8 or uint16 (images, H, W), got {native} {shape}")

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        """Not known before it is written."""
        raise NotImplementedError

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        codes = np.asarray(chunk_array.as_numpy_array())
        data = await asyncio.to_thread(_encode, codes.astype(codes.dtype.newbyteorder("="), copy=False))
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        data = chunk_bytes.to_bytes()
        images = range(chunk_spec.shape[0])
        return await asyncio.to_thread(_decode, lambda at, size: data[at : at + size], chunk_spec, images)

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, chunk_spec: Any) -> Any:
        """Reads only the images that are selected."""
        loop = asyncio.get_running_loop()
        picked: NDArray[np.intp] = np.arange(chunk_spec.shape[0])[selection[0]]
        images = np.unique(picked).tolist()

        async def fetch(at: int, size: int) -> bytes | None:
            found = await byte_getter.get(chunk_spec.prototype, RangeByteRequest(at, at + size))
            return None if found is None else found.to_bytes()

        class Gone(Exception):  # noqa: N818
            pass

        def read_at(at: int, size: int) -> bytes:
            found = asyncio.run_coroutine_threadsafe(fetch(at, size), loop).result()
            if found is None:
                raise Gone
            return found

        try:
            codes = await loop.run_in_executor(_hands.pool, _decode, read_at, chunk_spec, images)
        except Gone:
            return None  # zarr reads a chunk that is not there as its fill value
        rows = slice(None) if isinstance(selection[0], slice) else np.searchsorted(images, picked)
        return codes[(rows, *selection[1:])]


def _encode(codes: Codes) -> bytes:
    return b"".join(assemble([encode(image) for image in codes], codes.dtype.itemsize, Size(*codes.shape[1:])))


def _decode(read_at: Any, spec: Any, images: Any) -> Any:
    """The chosen images of a chunk as zarr's buffer, (len(images), H, W)."""
    dtype = spec.dtype.to_native_dtype().newbyteorder("=")
    count, *size = spec.shape
    out = np.zeros((len(images), *size), dtype)
    try:
        chunk = PackedChunk(read_at, count, dtype, Size(*size))
        for row, image in zip(out, images, strict=True):
            entry = chunk.images[image]
            if entry is not None:
                chunk.read(entry, row[: entry.height, : entry.width])
    except ChunkError as error:
        raise ValueError(f"a chunk of {CODEC} {error}") from error
    return spec.prototype.nd_buffer.from_numpy_array(out)


register_codec(CODEC, PackedCodec)
