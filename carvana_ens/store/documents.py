"""The ``zarr.json`` of a store's group and arrays, as bytes: what zarr 3.1 writes for them, whatever version is here.

So every bit of them is known: ``verify`` compares what lies there with what the store's own writer put there. zarr
itself reads much that means the same, and leaves out words that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from carvana_ens.store.packed_codec import CODEC
from carvana_ens.store.packed_reader import SEPARATOR
from carvana_ens.store.schema import DONE_CHUNK, FIRST, DType, attributes
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Json

GROUP = "zarr.json"
PROB = "prob/zarr.json"
DONE_DOCUMENT = "done/zarr.json"
PHOTOS = "photos/zarr.json"
"""Only where it is known which photos the maps were made of."""
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}


def group_document(found: Mapping[str, Json]) -> bytes:
    """Of the group, with these attributes."""
    return _text({"attributes": found, "zarr_format": 3, "node_type": "group"})


def documents(shape: tuple[int, int, int], dtype: DType) -> dict[str, bytes]:
    """Of the arrays of a store that grows, by their keys. shape: of ``prob``, (N, H, W)."""
    count = shape[0]
    little = _LITTLE if dtype == "uint16" else {"name": "bytes"}
    table = [_zstd(0), _CRC32C]
    texts = {"name": "vlen-utf8", "configuration": {}}
    prob = _array(shape, dtype, (1, *shape[1:]), [little, _zstd(1), _CRC32C])
    return {
        PROB: _text(_named(prob)),
        DONE_DOCUMENT: records_document(count),
        "ids/zarr.json": _text(_array((count,), "string", (count,), [texts, *table], fill="")),
        "sizes/zarr.json": _text(_array((count, 2), "uint32", (count, 2), [_LITTLE, *table])),
    }


def records_document(count: int) -> bytes:
    """Of done records, and of fingerprints of photos."""
    return _text(_array((count,), "uint64", (min(DONE_CHUNK, count),), [_LITTLE, _CRC32C]))


def packed_document(shape: tuple[int, int, int], dtype: DType, images: int) -> bytes:
    """Of the maps of a packed store, (N, H, W), with so many images a chunk."""
    return _text(_named(_array(shape, dtype, (images, *shape[1:]), [{"name": CODEC}], separator=SEPARATOR)))


def as_written(store: ProbabilityStore) -> dict[str, bytes]:
    """What the writer of a store put under its keys; nothing where its maps are laid out by another program."""
    if not (store.direct or store.packed):
        return {}
    height, width = (max(side) for side in zip(*store.sizes, strict=True))
    shape = len(store.ids), height, width
    found = documents(shape, store.dtype)
    if store.packed:
        found[PROB] = packed_document(shape, store.dtype, store.packed.images)
    if store.document(PHOTOS) is not None:
        found[PHOTOS] = records_document(len(store.ids))
    about = attributes(store.ids, store.dtype, store.provenance)
    return {GROUP: group_document(about), **found}


def altered(store: ProbabilityStore) -> list[str]:
    """Keys of the documents of a store that are not what its writer put there."""
    return [key for key, content in as_written(store).items() if store.document(key) not in _forms(key, content)]


def _forms(key: str, content: bytes) -> list[bytes]:
    """A document as this version writes it, and as earlier ones did: of schema 1, and by zarr 3.1.3."""
    if key != GROUP:
        return [content]
    ours = json.loads(content)["attributes"]["carvana_ens"]
    first = {name: value for name, value in ours.items() if name != "sha256"} | {"schema": FIRST}
    forms = [group_document({"carvana_ens": about}) for about in (ours, first)]
    old = (json.loads(form) for form in forms)
    return forms + [
        _text({"attributes": form["attributes"], "zarr_format": 3, "consolidated_metadata": None, "node_type": "group"})
        for form in old
    ]


def _zstd(level: int) -> dict[str, Json]:
    return {"name": "zstd", "configuration": {"level": level, "checksum": False}}


def _array(
    shape: Sequence[int],
    kind: str,
    chunks: Sequence[int],
    codecs: Sequence[Mapping[str, Json]],
    fill: Any = 0,
    separator: str = "/",
) -> dict[str, Json]:
    return {
        "shape": list(shape),
        "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": list(codecs),
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _named(array: dict[str, Json]) -> dict[str, Json]:
    """With names for the axes of maps, where zarr puts them."""
    last = {key: array.pop(key) for key in ("zarr_format", "node_type", "storage_transformers")}
    return {**array, "dimension_names": ["image", "y", "x"], **last}


def _text(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, indent=2).encode()
