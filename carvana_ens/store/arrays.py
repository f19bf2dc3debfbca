"""The arrays of a store: opened, and those beside the maps read.

What is as we write it is taken straight from what lies there, arrays in a folder only; whatever is not, or is damaged,
goes zarr's way, which says what is wrong. That way costs milliseconds a store, in which its threads wait for
each other, and a blend opens dozens. A test holds the two equal.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.vlen
import numcodecs.zstd
import numpy as np
import zarr
from zarr.api.asynchronous import open_group
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from carvana_ens.errors import StoreError, first_line
from carvana_ens.store.chunks import CHECKSUM, frame_size
from carvana_ens.store.place import Folder, Place

NAMES = ("prob", "done", "ids", "sizes")

_KEYS = {"name": "default", "configuration": {"separator": "/"}}


class _NotOursError(Exception):
    """Something is not as we write it."""


def open_arrays(place: Place) -> tuple[Mapping[str, Any], Mapping[str, Any], bytes | None]:
    """The attributes of the group, its arrays by name, and the bytes that describe ``prob``.

    Raises:
        StoreError: there is no group, or what describes it or an array is damaged.
    """
    about = place.get("zarr.json")
    if about is None:
        raise StoreError(f"{place} is no probability store (no zarr.json there): run predict or import first")
    found = {name: place.get(f"{name}/zarr.json") for name in NAMES}
    contents = {name: content for name, content in found.items() if content is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zarr only warns of data types that we never write
        try:
            attributes, arrays = _described(place, about, contents)
        except Exception:  # noqa: BLE001  (whatever it is, zarr is asked again, and says it)
            attributes, arrays = _opened(place, list(contents))
    return attributes, arrays, found["prob"]


def _described(place: Place, about: bytes, contents: Mapping[str, bytes]) -> tuple[Any, dict[str, Any]]:
    """What zarr would open, from the bytes that describe it."""
    group = json.loads(about)
    documents = {name: json.loads(content) for name, content in contents.items()}
    kinds = {(document["zarr_format"], document["node_type"]) for document in documents.values()}
    attributes = group["attributes"]
    if group != {"zarr_format": 3, "node_type": "group", "attributes": attributes} or not kinds <= {(3, "array")}:
        raise _NotOursError  # what else stands there may describe the arrays anew
    where = LocalStore(Path(str(place)), read_only=True) if isinstance(place, Folder) else place.zarr(read_only=True)
    arrays = {name: zarr.AsyncArray(document, StorePath(where, name)) for name, document in documents.items()}
    return attributes, {name: zarr.Array(array) for name, array in arrays.items()}


def _opened(place: Place, names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The same by zarr, in one call of its event loop."""

    async def opened() -> tuple[Any, list[Any]]:
        group = await open_group(store=place.zarr(read_only=True), mode="r", zarr_format=3)
        return group, await asyncio.gather(*map(group.getitem, names), return_exceptions=True)

    try:
        group, found = sync(opened())
    except Exception as error:  # zarr raises many kinds on damaged metadata
        _require_reach(place, error)
        raise StoreError(f"{place}/zarr.json cannot be read ({first_line(error)}): predict or import again") from error
    for name, array in zip(names, found, strict=True):
        if isinstance(array, BaseException):
            _require_reach(place, array)
            reason = first_line(array)
            raise StoreError(f"{place}/{name}/zarr.json cannot be read ({reason}): predict or import again") from array
    return group.attrs, {name: zarr.Array(array) for name, array in zip(names, found, strict=True)}


def read_arrays(place: Place, *arrays: Any) -> list[Any]:
    """All of some arrays, as numpy arrays.

    Raises:
        StoreError: one is damaged.
    """
    try:
        return [_values(place, array) for array in arrays]
    except Exception:  # noqa: BLE001  (as above)
        return _read(place, *arrays)


def _values(place: Place, array: Any) -> Any:
    """All of an array whose chunks are of whole rows, each under a crc32c."""
    codecs = [codec.to_dict()["name"] for codec in array.metadata.codecs]
    whole = array.metadata.chunk_key_encoding.to_dict() == _KEYS and array.chunks[1:] == array.shape[1:]
    if not isinstance(place, Folder) or not whole or codecs[-1] != "crc32c":
        raise _NotOursError
    chunks = [
        _chunk(array, codecs[:-1], place.get(f"{array.basename}/{array.metadata.encode_chunk_key((at, *rest))}"))
        for at in range(-(-array.shape[0] // array.chunks[0]))
        for rest in [(0,) * (array.ndim - 1)]
    ]
    return np.concatenate(chunks)[: array.shape[0]]


def _chunk(array: Any, codecs: Sequence[str], stored: bytes | None) -> Any:
    content = (stored or b"")[:-CHECKSUM]
    if not content or google_crc32c.value(content) != int.from_bytes((stored or b"")[-CHECKSUM:], "little"):
        raise _NotOursError
    if codecs == ["vlen-utf8", "zstd"]:
        return numcodecs.vlen.VLenUTF8().decode(numcodecs.zstd.decompress(content))
    dtype = array.dtype.newbyteorder("<")
    little = array.metadata.codecs[0].to_dict()["configuration"]["endian"] == "little"
    octets = dtype.itemsize * int(np.prod(array.chunks))
    if codecs == ["bytes", "zstd"] and frame_size(content[:18]) == octets:
        content = numcodecs.zstd.decompress(content)
    elif codecs != ["bytes"]:
        raise _NotOursError
    if not little or len(content) != octets:
        raise _NotOursError
    return np.frombuffer(content, dtype).astype(array.dtype).reshape(array.chunks)


def _read(place: Place, *arrays: Any) -> list[Any]:
    """The same by zarr, in one call of its event loop."""

    async def read() -> list[Any]:
        return await asyncio.gather(*(array.async_array.getitem(...) for array in arrays), return_exceptions=True)

    found = sync(read())
    for array, values in zip(arrays, found, strict=True):
        if isinstance(values, BaseException):
            _require_reach(place, values)
            reason = first_line(values)
            raise StoreError(
                f"{place}: array {array.basename} is damaged ({reason}): predict or import again"
            ) from values
    return found


def _require_reach(place: Place, error: BaseException) -> None:
    """StoreError where what zarr raised says nothing of what lies there."""
    if place.out_of_reach(error):
        raise StoreError(f"{place} cannot be read: {first_line(error)}") from error
