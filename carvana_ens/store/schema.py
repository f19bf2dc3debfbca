"""What a probability store says of itself: layout, codes and provenance, under one versioned schema.

A store is one zarr v3 group::

    zarr.json        attributes: {"carvana_ens": {schema, code, ids_sha256, provenance, sha256 of these}}
    prob             uint8 or uint16 (N, H, W), one image a chunk; codecs bytes, zstd, crc32c (others are read too)
    done             uint64 (N,): 0 = not there, else 2**32 | crc32 of the image's codes (row-major, true size)
    ids              string (N,)
    sizes            uint32 (N, 2): true height and width of each image; the array is as large as the largest
    photos           uint64 (N,), only where it is known: a fingerprint of the photo that each map was made of
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from carvana_ens.errors import StoreError
from carvana_ens.files import digest
from carvana_ens.types import Json

SCHEMA = 2
FIRST = 1
"""The schema before, without a sha256 of the attributes: read, and continued, as it is."""
DONE = np.uint64(1 << 32)
"""Bit of a done record that says the image is there; the low 32 bits are its checksum."""
DONE_CHUNK = 1024
"""Records a chunk: all records of 100,064 images are 98 small reads, not one a map."""
MAX_IMAGES = 10_000_000
MAX_PIXELS = 1 << 30
"""Bounds that a store's metadata must keep before anything is allocated for it."""
FULL_SCALE = {"uint8": 255, "uint16": 65535}
DType = Literal["uint8", "uint16"]
Seen = Literal["fold table", "none", "declared out-of-fold", "unknown"]
"""Which of the split's groups the models behind the maps were trained on.

"fold table": each map is by a fold model that held its group out, or the photos are outside the table. "none": no
model was trained. "declared out-of-fold": imported, and the user said so. "unknown": imported, nobody said.
"""
PENDING = "pending"
"""Stands for the sha256 of a fold's checkpoint that is not trained yet; such a store may learn it later."""


@dataclass(frozen=True)
class Provenance:
    """Where the maps of a store come from.

    member: the member's config as JSON. split: "oof", "test" or a name of the user's. plugin: distribution and
    version of the model's package. checkpoints: sha256 by fold. fold_table: its name and digest. seen: see Seen.
    averaging: in which spaces augmented views and fold models were averaged. source: of imported maps.
    """

    member: Mapping[str, Json]
    split: str
    seen: Seen
    plugin: Mapping[str, Json] | None = None
    checkpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fold_table: Mapping[str, Json] | None = None
    averaging: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Plain JSON values; ``from_json`` gives the same provenance back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Provenance:
        """The provenance that ``to_json`` described.

        Raises:
            StoreError: a key is missing or unknown.
        """
        try:
            return cls(**document)
        except TypeError as error:
            raise StoreError(f"the store's provenance is not of schema {SCHEMA}: {error}") from error

    def differences(self, other: Provenance) -> list[str]:
        """Names of the fields that differ, in words for the user."""
        mine, theirs = self.to_json(), other.to_json()
        names = [name for name in mine if name != "member" and mine[name] != theirs[name]]
        keys = sorted({*mine["member"], *theirs["member"]})
        return names + [f"member {key}" for key in keys if mine["member"].get(key) != theirs["member"].get(key)]

    def fulfils(self, earlier: Provenance) -> bool:
        """Whether this is ``earlier`` with nothing changed but checkpoints that were pending there."""
        if self.checkpoints.keys() != earlier.checkpoints.keys():
            return False
        settled = {f: self.checkpoints[f] if sha == PENDING else sha for f, sha in earlier.checkpoints.items()}
        return dataclasses.replace(earlier, checkpoints=settled).to_json() == self.to_json()


def ids_digest(ids: Sequence[str]) -> str:
    """sha256 (hex) of the ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def attributes(ids: Sequence[str], dtype: DType, provenance: Provenance) -> dict[str, Json]:
    """The attributes of a store's group."""
    ours = {
        "schema": SCHEMA,
        "code": {"full_scale": FULL_SCALE[dtype], "rule": "rint(full_scale * p) in float32, half to even"},
        "ids_sha256": ids_digest(ids),
        "provenance": provenance.to_json(),
    }
    return {"carvana_ens": {**ours, "sha256": digest(ours)}}


def check_attributes(place: str, found: Mapping[str, Any]) -> dict[str, Json]:
    """Our part of a group's attributes.

    Raises:
        StoreError: there is none, it has another schema, or it was changed.
    """
    ours = found.get("carvana_ens")
    if not isinstance(ours, dict) or "schema" not in ours:
        raise StoreError(f"{place} is a zarr group but no probability store: import its maps as a member first")
    schema = ours["schema"]
    if schema not in (FIRST, SCHEMA):
        raise StoreError(f"{place} has schema {schema!r}, this version reads {FIRST} and {SCHEMA}: upgrade carvana-ens")
    if not {"code", "ids_sha256", "provenance", *(["sha256"] if schema == SCHEMA else [])} <= ours.keys():
        raise StoreError(f"{place} lacks attributes of schema {schema}: predict or import it again")
    if schema == SCHEMA and ours["sha256"] != digest({key: ours[key] for key in ours if key != "sha256"}):
        raise StoreError(f"{place}: what zarr.json says of the maps was changed: predict or import it again")
    return ours


def check_arrays(place: str, arrays: Mapping[str, Any]) -> DType:
    """The dtype of ``prob``, after shapes and dtypes of all four arrays were found to be a store's.

    arrays: zarr arrays by name. Bounds are checked before any chunk is read, so that hostile metadata cannot make us
    allocate. Chunks and codecs are the business of the readers.

    Raises:
        StoreError: an array is missing or has another shape or dtype.
    """
    for name in ("prob", "done", "ids", "sizes"):
        if name not in arrays:
            raise StoreError(f"{place} has no array {name!r}: predict or import it again")
    prob = arrays["prob"]
    if len(prob.shape) != 3:
        raise StoreError(f"{place}: prob has shape {prob.shape}, expected (images, height, width)")
    count, height, width = prob.shape
    if not (0 < count <= MAX_IMAGES and 0 < height * width <= MAX_PIXELS):
        raise StoreError(f"{place}: prob has shape {prob.shape}, more than a store may hold")
    if prob.dtype.name not in FULL_SCALE:  # whatever its byte order
        raise StoreError(f"{place}: prob is {prob.dtype}, expected uint8 or uint16")
    expected = {"done": ((count,), "uint64"), "ids": ((count,), None), "sizes": ((count, 2), "uint32")}
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if array.shape != shape or (dtype is not None and str(array.dtype) != dtype):
            raise StoreError(f"{place}: {name} is {array.dtype} {array.shape}, expected {dtype or 'text'} {shape}")
    return "uint8" if prob.dtype.itemsize == 1 else "uint16"
