"""Fingerprints of photos beside the done records: what zarr reads, written before a map is done, damage found."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from carvana_ens.errors import StoreError
from carvana_ens.store.documents import altered
from carvana_ens.store.packing import pack_store
from carvana_ens.store.place import place_of
from carvana_ens.store.prints import Prints, mend_prints, prints_damage
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

COUNT = 2100
IDS = [f"{number}_1" for number in range(COUNT)]


@pytest.fixture
def written(tmp_path, provenance):
    """Three chunks of records; maps of which the last has no known photo."""
    path = tmp_path / "m.zarr"
    with StoreWriter(path, IDS, [Size(1, 2)] * COUNT, provenance) as writer:
        writer.photo = lambda image_id: 10 * int(image_id.split("_")[0]) + 2**63
        for number in (0, 5, 1500):
            writer.write_codes(IDS[number], np.zeros((1, 2), np.uint8))
        writer.record([(IDS[2099], 0)])
        writer.photo = None
        writer.write_codes(IDS[7], np.zeros((1, 2), np.uint8))
        assert writer.prints() == expected()
    return path


def expected():
    return {IDS[number]: 10 * number + 2**63 for number in (0, 5, 1500, 2099)}


def test_they_are_an_array_of_zarr_and_are_read_back(written, provenance):
    values = zarr.open_group(written, mode="r")["photos"][:]
    assert {IDS[number]: int(values[number]) for number in np.flatnonzero(values)} == expected()
    with StoreWriter(written, IDS, [Size(1, 2)] * COUNT, provenance) as writer:
        assert writer.prints() == expected()
        writer.forget([IDS[5]])
        assert writer.prints() == {i: value for i, value in expected().items() if i != IDS[5]}
    assert altered(open_store(written)) == []


def test_they_change_nothing_else_of_a_store(written, tmp_path, provenance):
    with StoreWriter(tmp_path / "plain.zarr", IDS, [Size(1, 2)] * COUNT, provenance) as writer:
        for number in (0, 5, 7, 1500):
            writer.write_codes(IDS[number], np.zeros((1, 2), np.uint8))
        writer.record([(IDS[2099], 0)])
    assert open_store(tmp_path / "plain.zarr").fingerprint() == open_store(written).fingerprint()
    assert not (tmp_path / "plain.zarr" / "photos").exists()


def test_a_map_is_not_done_before_its_photo_is_noted(written, provenance):
    def gone(image_id):
        raise StoreError(f"no photo of {image_id}")

    with StoreWriter(written, IDS, [Size(1, 2)] * COUNT, provenance) as writer:
        writer.photo = gone
        with pytest.raises(StoreError, match="no photo of 9_1"):
            writer.write_codes(IDS[9], np.zeros((1, 2), np.uint8))
        assert IDS[9] in writer.missing()


def test_packing_keeps_them(tmp_path, provenance):
    path = tmp_path / "m.zarr"
    with StoreWriter(path, IDS[:3], [Size(1, 2)] * 3, provenance) as writer:
        writer.photo = lambda image_id: 77
        for image_id in IDS[:3]:
            writer.write_codes(image_id, np.zeros((1, 2), np.uint8))
    pack_store(path)
    assert Prints(place_of(path), 3).values.tolist() == [77] * 3
    assert altered(open_store(path)) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damage_is_found_and_mended_chunk_by_chunk(written, provenance, damage):
    chunk = written / "photos" / "c" / "1"
    octets = bytearray(chunk.read_bytes())
    octets[700] ^= 4
    chunk.write_bytes({"flip": bytes(octets), "cut": bytes(octets[:-9]), "empty": b""}[damage])
    place = place_of(written)
    (line,) = prints_damage(place, COUNT)
    assert line.startswith(f"{written}: array photos is damaged")
    with pytest.raises(StoreError, match="array photos is damaged"):
        StoreWriter(written, IDS, [Size(1, 2)] * COUNT, provenance).__enter__()
    assert mend_prints(place, COUNT)
    assert prints_damage(place, COUNT) == []
    assert not mend_prints(place, COUNT)
    with StoreWriter(written, IDS, [Size(1, 2)] * COUNT, provenance) as writer:
        assert writer.prints() == {i: value for i, value in expected().items() if i != IDS[1500]}
