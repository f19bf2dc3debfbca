"""Blends of packed stores: the same as of plain ones and as whole numbers in numpy, or an error that names the map."""

from __future__ import annotations

import runpy
import shutil
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import google_crc32c
import numcodecs.lz4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.ensemble.blending import Blend
from carvana_ens.errors import StoreError
from carvana_ens.store import packing
from carvana_ens.store.packed_chunk import ENTRY, HEADER, PackedChunk
from carvana_ens.store.packed_reader import chunk_key
from carvana_ens.store.packing import pack_store
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

TWINS = runpy.run_path(str(Path(__file__).parents[1] / "core" / "reference.py"))
SIZES = [(20, 31), (1, 9), (13, 1), (1, 1), (8, 64), (7, 33), (20, 64)]
ROAD = ["1/4", "0.37", "0.5", "128/255", "0.62"]
BESIDE = ["0.01", "0.99", "1"]
WEIGHTS = ["equal", "a=2,b=1,c=1", "a=65533,b=2,c=1", "a=0,b=3,c=2", "a=1e-3,b=1,c=7"]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(packing, "IMAGES", 3)


def maps_of(seed, dtype=np.uint8, sizes=SIZES):
    """Maps of every kind, by id; those of the next seed are of other kinds."""
    found = {}
    for number, size in enumerate(sizes):
        kinds = list(TWINS["sure_kinds"](size, dtype, seed).values())
        found[f"img_{number:02d}"] = kinds[(number + 5 * seed + 3) % len(kinds)]
    return found


def packed(store):
    pack_store(store.path)
    again = open_store(store.path)
    assert again.packed is not None
    return again


def given_weights(text):
    return {"a": "1", "b": "1", "c": "1"} if text == "equal" else dict(pair.split("=") for pair in text.split(","))


@pytest.fixture
def cold_reads(monkeypatch):
    """Counts the cold halves that are read one way: not by the kernel, as if the stores were at an address."""
    read, real, opened = [], PackedChunk.read_cold, PackedChunk.__init__

    def counting(self, entry, places):
        read.append(len(places))
        return real(self, entry, places)

    def without_handle(self, *args):
        opened(self, *args)
        self.handle = -1

    monkeypatch.setattr(PackedChunk, "read_cold", counting)
    monkeypatch.setattr(PackedChunk, "__init__", without_handle)
    return read


@pytest.fixture
def no_cold_reads(monkeypatch):
    """Has nothing but the kernel read cold halves."""

    def refusing(self, entry, places):
        raise AssertionError(places)

    monkeypatch.setattr(PackedChunk, "read_cold", refusing)


def check_equal(store, oracle, weights, dtypes):
    """Blends of plain and of packed stores, and whole numbers."""
    codes = {name: maps_of(seed, np.dtype(dtypes[seed])) for seed, name in enumerate("abc")}
    stores = {name: store(name, maps) for name, maps in codes.items()}
    full = max(stores[name].full_scale for name in Blend(stores, weights).weights)
    plain = {threshold: list(Blend(stores, weights, threshold)) for threshold in ROAD + BESIDE}
    small = {name: packed(opened) for name, opened in stores.items()}
    numbers = [Fraction(given_weights(weights)[name]) for name in "abc"]
    for threshold, masks in plain.items():
        found = Blend(small, weights, threshold)
        assert (found._packed is not None) == (threshold in ROAD)
        assert [image_id for image_id, _ in masks] == list(codes["a"])
        rows = dict(found.rles(2))
        for (image_id, mask), (_, got) in zip(masks, found, strict=True):
            scaled = [m[image_id].astype(np.int64) * (full // np.iinfo(m[image_id].dtype).max) for m in codes.values()]
            expected = oracle.naive_blend(scaled, numbers, Fraction(threshold), full)
            assert np.array_equal(mask, expected), (image_id, threshold)
            assert np.array_equal(got, expected), (image_id, threshold)
            assert rows[image_id].decode() == oracle.naive_rle(expected)


@pytest.mark.parametrize("dtypes", [("uint8",) * 3, ("uint16",) * 3, ("uint8", "uint16", "uint8")], ids="".join)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_packed_plain_and_whole_numbers_agree(store, oracle, cold_reads, weights, dtypes):
    check_equal(store, oracle, weights, dtypes)
    assert cold_reads or weights not in ("equal", "a=2,b=1,c=1")


@pytest.mark.parametrize("dtypes", [("uint8",) * 3, ("uint16",) * 3, ("uint8", "uint16", "uint8")], ids="".join)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.usefixtures("no_cold_reads")
def test_they_agree_where_the_kernel_reads_everything(store, oracle, weights, dtypes):
    check_equal(store, oracle, weights, dtypes)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=7),
    dtypes=st.lists(st.sampled_from(["uint8", "uint16"]), min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    threshold=st.fractions(Fraction(1, 100), 1, max_denominator=255),
    seed=st.integers(0, 100),
)
def test_any_packed_blend_equals_whole_numbers(oracle, sizes, dtypes, weights, threshold, seed):
    codes = [maps_of(seed + 7 * member, np.dtype(dtype), sizes) for member, dtype in enumerate(dtypes)]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "IMAGES", 3)
        stores = {}
        for member, (maps, dtype) in enumerate(zip(codes, dtypes, strict=True)):
            said = Provenance(member={"name": f"m{member}"}, split="oof", seen="none")
            path = Path(folder) / f"m{member}.zarr"
            with StoreWriter(path, tuple(maps), [Size(*size) for size in sizes], said, dtype) as writer:
                for image_id, one in maps.items():
                    writer.write_codes(image_id, one)
            pack_store(path)
            stores[f"m{member}"] = open_store(path)
        text = ",".join(f"{name}={weight}" for name, weight in zip(stores, weights, strict=False))
        full = max(store.full_scale for store in stores.values())
        for image_id, mask in Blend(stores, text, threshold):
            scaled = [m[image_id].astype(np.int64) * (full // np.iinfo(m[image_id].dtype).max) for m in codes]
            expected = oracle.naive_blend(scaled, [Fraction(w) for w in weights[: len(codes)]], threshold, full)
            assert np.array_equal(mask, expected)


def test_ties_inside_cold_halves_are_settled(store, cold_reads):
    """250 and 5 are 127.5 = 0.5 * 255 together: only the cold parts know that they are not 249 and 5."""
    high, low = np.full((9, 70), 250, np.uint8), np.full((9, 70), 5, np.uint8)
    low[3, 40] = 4
    stores = {name: packed(store(name, {"one": codes, "two": codes})) for name, codes in (("a", high), ("b", low))}
    for _, mask in Blend(stores, "equal", "0.5"):
        assert np.array_equal(mask, low == 5)
    assert cold_reads == [20] * 4  # of two members and two images every half, 630 pixels
    for _, mask in Blend(stores, "a=1,b=3", "0.5"):
        assert not mask.any()
    assert len(cold_reads) == 4  # neither end of what they may hold reaches the cut


@pytest.mark.usefixtures("no_cold_reads")
def test_the_kernel_settles_ties_by_itself(store):
    high, low = np.full((90, 700), 250, np.uint8), np.full((90, 700), 5, np.uint8)  # halves of several stripes
    low[3, 40] = low[89, 699] = 4
    stores = {name: packed(store(name, {"one": codes, "two": codes})) for name, codes in (("a", high), ("b", low))}
    for _, mask in Blend(stores, "equal", "0.5"):
        assert np.array_equal(mask, low == 5)


def test_sure_members_and_hot_ones_need_no_cold_codes(store, cold_reads):
    rng = np.random.default_rng(1)
    noise = np.where(np.arange(64) < 32, rng.integers(0, 13, (20, 64)), rng.integers(243, 256, (20, 64))).astype(
        np.uint8
    )
    stores = {name: packed(store(name, {"one": np.roll(noise, n, axis=0)})) for n, name in enumerate("abc")}
    ((_, mask),) = Blend(stores, "equal", "0.5")
    assert np.array_equal(mask, noise > 100)
    assert cold_reads == []


def test_packed_and_plain_stores_together_take_the_plain_road(store, oracle):
    codes = {name: maps_of(seed) for seed, name in enumerate("ab")}
    stores = {"a": packed(store("a", codes["a"])), "b": store("b", codes["b"])}
    found = Blend(stores, "a=2,b=1", "0.5")
    assert found._packed is None
    for image_id, mask in found:
        pair = [codes[name][image_id] for name in "ab"]
        assert np.array_equal(mask, oracle.naive_blend(pair, [Fraction(2), Fraction(1)], Fraction(1, 2)))


class Damaged:
    """Two packed members; the chunk of one of them is written anew by each test."""

    NAMES = "ab"

    def __init__(self, store, oracle, threshold):
        self.codes = {name: maps_of(seed) for seed, name in enumerate(self.NAMES)}
        self.paths = {name: Path(packed(store(name, maps)).path) for name, maps in self.codes.items()}
        self.file = self.paths["b"] / chunk_key(0)
        self.good = self.file.read_bytes()
        self.stores = {name: open_store(path) for name, path in self.paths.items()}
        self.blend = Blend(self.stores, "equal", threshold)
        pair = {i: [self.codes[name][i] for name in self.NAMES] for i in self.codes["a"]}
        self.rows = {
            i: oracle.naive_rle(oracle.naive_blend(maps, [Fraction(1)] * 2, Fraction(threshold))).encode()
            for i, maps in pair.items()
        }
        self.first = list(pair)[:3]

    def damage(self):
        self.forget()
        return [line for line in map(self.stores["b"].damage, self.rows) if line is not None]

    def forget(self):
        """Has the stores open their chunks again."""
        for opened in self.stores.values():
            opened.packed._chunks.clear()
        if self.blend._packed is not None:
            self.blend._packed._runs.clear()

    def refused(self):
        """Blends every image alone; how many were refused. Each of the others is right."""
        self.forget()
        told = {}
        for image_id, row in self.rows.items():
            try:
                found = self.blend.rle(image_id)
            except StoreError as error:
                told[image_id] = str(error)
            else:
                assert found == row
        assert told.keys() <= set(self.first)
        for image_id, line in told.items():
            assert f"b.zarr: the chunk of {image_id} " in line or f"b.zarr: the map of {image_id} " in line
            assert "\n" not in line
        return len(told)


@pytest.fixture(params=["0.5", "0.99"], ids=["packed road", "plain road"])
def damaged(store, oracle, request):
    here = Damaged(store, oracle, request.param)
    assert here.refused() == 0
    assert here.damage() == []
    return here


def test_every_flipped_bit_is_found(damaged):
    rng, refused = np.random.default_rng(3), 0
    header = HEADER.size + 3 * ENTRY.itemsize
    places = {*rng.integers(0, len(damaged.good), 300).tolist(), *range(0, header, 3), len(damaged.good) - 1}
    for at in sorted(places):
        bad = bytearray(damaged.good)
        bad[at] ^= 1 << rng.integers(8)
        damaged.file.write_bytes(bad)
        told = damaged.damage()
        assert len(told) == (3 if at < header else 1), at
        assert all("b.zarr" in line and "img_0" in line for line in told)
        refused += damaged.refused()
    assert refused > len(places) // 2


def test_every_cut_is_found(damaged):
    rng = np.random.default_rng(4)
    for length in {0, 1, HEADER.size, *rng.integers(0, len(damaged.good), 50).tolist(), len(damaged.good) - 1}:
        damaged.file.write_bytes(damaged.good[:length])
        assert damaged.damage(), length
        assert damaged.refused() <= 3
    damaged.file.unlink()
    assert len(damaged.damage()) == damaged.refused() == 3


@pytest.mark.parametrize("which", ["another chunk", "another member", "the same photos changed"])
def test_a_swapped_chunk_is_found(store, damaged, which):
    if which == "another chunk":
        shutil.copy(damaged.paths["b"] / chunk_key(1), damaged.file)
    elif which == "another member":
        shutil.copy(damaged.paths["a"] / chunk_key(0), damaged.file)
    else:
        changed = {i: np.where(codes < 200, codes, codes - 1) for i, codes in damaged.codes["b"].items()}
        other = packed(store("other", {i: codes.astype(np.uint8) for i, codes in changed.items()}))
        shutil.copy(Path(other.path) / chunk_key(0), damaged.file)
    told = damaged.damage()
    assert told
    assert damaged.refused() == len(told)


@pytest.fixture
def lying(store, oracle):
    return Damaged(store, oracle, "0.5")


def resealed(good, entries):
    """The file with other entries, under the right checksum."""
    head = good[: HEADER.size - 4]
    crc = google_crc32c.value(head + entries.tobytes()).to_bytes(4, "little")
    return head + crc + entries.tobytes() + good[HEADER.size + entries.nbytes :]


@pytest.mark.parametrize("field", [name for name in ENTRY.names if name != "codes_crc"])
def test_a_header_that_lies_under_a_right_checksum_is_refused_or_does_no_harm(lying, field):
    entries = np.frombuffer(lying.good, ENTRY, 3, HEADER.size)
    values = [0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    values += [2**62, 2**63 - 1, 2**63, 2**64 - 1] if field.endswith("_at") else []
    for number in range(3):
        true = int(entries[number][field])
        for value in {*values, true - 1, true + 1, *(int(entry[field]) for entry in entries)} - {-1, true}:
            lie = entries.copy()
            lie[number][field] = value
            lying.file.write_bytes(resealed(lying.good, lie))
            refused = lying.refused()
            assert refused or field == "cold_at", (number, value)  # read where bits hang on it


@pytest.mark.parametrize("change", ["zeros", "ones", "one plane word less"])
def test_hot_parts_that_lie_under_right_checksums_name_their_store(lying, change):
    """Their planes contradict each other, or say more hot halves than there are literals."""
    entries = np.frombuffer(lying.good, ENTRY, 3, HEADER.size).copy()
    entry = entries[entries["words"].argmax()]
    at, size = int(entry["hot_at"]), int(entry["hot_size"])
    table = size - 8 * -(-int(entry["colds"]) // 512)
    octets = bytearray(numcodecs.lz4.decompress(lying.good[at : at + table]))
    planes = 8 * int(entry["words"])
    octets[:planes] = {"zeros": bytes(planes), "ones": b"\xff" * planes}.get(change, octets[8:planes] + bytes(8))
    hot = bytes(numcodecs.lz4.compress(bytes(octets))) + lying.good[at + table : at + size]
    entry["hot_at"], entry["hot_size"], entry["hot_crc"] = len(lying.good), len(hot), google_crc32c.value(hot)
    lying.file.write_bytes(resealed(lying.good, entries) + hot)
    assert lying.refused() == 1
    assert len(lying.damage()) == 1


def test_stores_of_another_form_are_refused_in_one_line(damaged):
    damaged.file.write_bytes(damaged.good[:6] + b"01" + damaged.good[8:])
    damaged.forget()
    told = "is packed in form 1, this version of carvana-ens reads form 2: delete the store and predict .or import. it"
    with pytest.raises(StoreError, match=rf"b\.zarr: the chunk of img_00 {told} again$"):
        damaged.blend.rle("img_00")
    assert len(damaged.damage()) == 3
