"""What is taken straight from a store's files is what zarr makes of them, whole or damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from carvana_ens.errors import StoreError
from carvana_ens.store import arrays
from carvana_ens.store.packing import pack_store
from carvana_ens.store.place import place_of
from carvana_ens.store.schema import DONE_CHUNK
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

FILES = [f"{name}/zarr.json" for name in arrays.NAMES] + ["zarr.json", "done/c/0", "ids/c/0", "sizes/c/0/0"]


def outcome(path):
    """Everything that a store says of itself, or the error."""
    place = place_of(path)
    try:
        attributes, found, about = arrays.open_arrays(place)
        values = arrays.read_arrays(place, *(found[name] for name in ("done", "ids", "sizes") if name in found))
    except StoreError as error:
        return str(error)
    described = {
        name: (array.metadata.to_dict(), array.path, array.shape, array.chunks) for name, array in found.items()
    }
    return (
        dict(attributes),
        described,
        about,
        [("iu" if value.dtype.kind in "iu" else "text", value.tolist()) for value in values],
    )


@pytest.fixture
def by_zarr(monkeypatch):
    """The same by zarr alone."""

    def refuse(*args):
        raise arrays._NotOursError

    def run(path):
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "_described", refuse)
            patch.setattr(arrays, "_values", refuse)
            return outcome(path)

    return run


@pytest.fixture
def many(tmp_path, provenance):
    """A store of more images than there are done records in a chunk; the last ones are there."""
    ids = tuple(f"å{number:05d}" for number in range(DONE_CHUNK + 5))
    with StoreWriter(tmp_path / "many.zarr", ids, [Size(1, 2)] * len(ids), provenance) as writer:
        for image_id in ids[-7:]:
            writer.write_codes(image_id, np.full((1, 2), 3, np.uint8))
    return tmp_path / "many.zarr"


def test_our_stores_are_opened_without_zarr(stored, many, monkeypatch):
    def refuse(*args):
        raise AssertionError(args)

    monkeypatch.setattr(arrays, "_opened", refuse)
    monkeypatch.setattr(arrays, "_read", refuse)
    store = open_store(stored)
    assert (store.missing(), store.read("b_01").shape) == ([], (25, 40))
    pack_store(stored)
    assert open_store(stored).missing() == []
    assert len(open_store(many).missing()) == DONE_CHUNK - 2


def test_it_equals_zarrs(stored, many, by_zarr):
    for path in (stored, many):
        found = outcome(path)
        assert found == by_zarr(path)
        assert not isinstance(found, str)
    pack_store(stored)
    assert outcome(stored) == by_zarr(stored)


@pytest.mark.parametrize("file", FILES)
def test_damage_is_told_as_zarr_tells_it(stored, by_zarr, file):
    good, rng, told = (stored / file).read_bytes(), np.random.default_rng(6), 0
    for at in rng.integers(0, len(good), 40).tolist():
        bad = bytearray(good)
        bad[at] ^= 1 << rng.integers(8)
        (stored / file).write_bytes(bad)
        found = outcome(stored)
        assert found == by_zarr(stored), at
        told += isinstance(found, str)
    for length in (0, 1, len(good) // 2, len(good) - 1):
        (stored / file).write_bytes(good[:length])
        found = outcome(stored)
        assert found == by_zarr(stored), length
        told += isinstance(found, str)
    assert told > 5
    (stored / file).unlink()
    assert outcome(stored) == by_zarr(stored)


def test_what_another_hand_wrote_is_read_by_zarr(stored, by_zarr):
    """Other codecs, other chunks, metadata in one place: the values are the same."""
    before = outcome(stored)
    group = zarr.open_group(stored, mode="a")
    values = {name: group[name][...] for name in ("done", "sizes", "ids")}
    for name, chunks in (("done", (3,)), ("sizes", (2, 1)), ("ids", (2,))):
        kind = "str" if name == "ids" else values[name].dtype
        array = group.create_array(name, shape=values[name].shape, chunks=chunks, dtype=kind, overwrite=True)
        array[...] = values[name]
    found = outcome(stored)
    assert found == by_zarr(stored)
    assert found[3] == before[3]
    document = json.loads((stored / "zarr.json").read_text())
    described = {"kind": "inline", "must_understand": False, "metadata": {}}
    (stored / "zarr.json").write_text(json.dumps(document | {"consolidated_metadata": described}))
    assert outcome(stored) == by_zarr(stored)
