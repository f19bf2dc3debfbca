"""Chunks written for a store's writer by other hands: what counts, and what is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from carvana_ens.errors import StoreError
from carvana_ens.store.hand import StoreHand
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

IDS = ("a_01", "a_02", "007")
SIZES = (Size(30, 41), Size(30, 41), Size(25, 40))
HERE = Provenance(member={"name": "m", "model": "x"}, split="test", seen="none")


def values(image_id):
    rng = np.random.default_rng(list(image_id.encode()))
    return rng.random(SIZES[IDS.index(image_id)], dtype=np.float32)


def test_what_hands_write_is_what_the_writer_writes(tmp_path):
    with StoreWriter(tmp_path / "own.zarr", IDS, SIZES, HERE) as writer:
        for image_id in IDS:
            writer.write(image_id, values(image_id))
    path = tmp_path / "handed.zarr"
    with StoreWriter(path, IDS, SIZES, HERE) as writer:
        hands = [StoreHand(open_store(path), writer.token) for _ in range(2)]
        checksums = [(i, hands[k % 2].write(i, values(i))) for k, i in enumerate(IDS)]
        assert open_store(path).missing() == list(IDS)  # chunks alone do not count
        writer.record(checksums[1:])
        assert writer.missing() == open_store(path).missing() == ["a_01"]
        writer.record(checksums[:1])
    own, handed = open_store(tmp_path / "own.zarr"), open_store(path)
    assert own.fingerprint() == handed.fingerprint()
    for image_id, checksum in checksums:
        codes = np.rint(values(image_id) * np.float32(255)).astype(np.uint8)
        assert np.array_equal(handed.read(image_id), codes)
        assert checksum == zlib.crc32(codes.tobytes())
        assert handed.damage(image_id) is None


def test_a_hand_stops_when_its_writer_has_gone(tmp_path):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, IDS, SIZES, HERE) as writer:
        hand = StoreHand(open_store(path), writer.token)
        hand.write("a_01", values("a_01"))
    with pytest.raises(StoreError, match="not being written by the process that sent this work"):
        hand.write("a_02", values("a_02"))
    told = pytest.raises(StoreError, match="not being written by the process that sent this work")
    with StoreWriter(path, IDS, SIZES, HERE), told:  # another writer, who has not sent it
        hand.write("a_02", values("a_02"))
    assert [file.name for file in (path / "prob" / "c").iterdir()] == ["0"]


def test_what_cannot_be_written_is_refused_by_hands_too(tmp_path):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, IDS, SIZES, HERE) as writer:
        hand = StoreHand(open_store(path), writer.token)
        with pytest.raises(StoreError, match=r"the map of 007 is uint8 30x41, expected uint8 25x40"):
            hand.write("007", values("a_01"))
        with pytest.raises(StoreError, match=r"image 007: a probability map must lie in \[0, 1\]"):
            hand.write("007", values("007") + 1)
        with pytest.raises(StoreError, match="has no image 'b_01'"):
            hand.write("b_01", values("007"))
    assert not (path / "prob" / "c").exists()
