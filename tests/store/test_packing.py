"""Packing in place: the same maps afterwards, and a whole store of one kind or the other whenever it is stopped."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

import carvana_ens
from carvana_ens.errors import StoreError
from carvana_ens.store import packing
from carvana_ens.store.chunks import DirectReader
from carvana_ens.store.packed_reader import MOST, PackedReader, chunk_key
from carvana_ens.store.packing import maps_size, pack_store
from carvana_ens.store.place import place_of
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

TWINS = runpy.run_path(str(Path(__file__).parents[1] / "core" / "reference.py"))
HERE = Provenance(member={"name": "m", "model": "x"}, split="test", seen="none")
SIZES = [(17, 61), (9, 50), (1, 61), (17, 1), (1, 1), (16, 32), (5, 13)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(packing, "IMAGES", 3)


def maps_of(count=7, dtype="uint8"):
    found = {}
    for number in range(count):
        kinds = list(TWINS["sure_kinds"](SIZES[number % len(SIZES)], dtype, number).values())
        found[f"img_{number:02d}"] = kinds[(5 * number + 6) % len(kinds)]
    return found


def written(path, maps, leave=()):
    dtype = str(next(iter(maps.values())).dtype)
    with StoreWriter(path, tuple(maps), [Size(*codes.shape) for codes in maps.values()], HERE, dtype) as writer:
        for image_id, codes in maps.items():
            if image_id not in leave:
                writer.write_codes(image_id, codes)
    return path


def files(path):
    """Content by name, of a folder and of what lies beside it under its name; without the lock."""
    found = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    beside = {file.name for file in path.parent.iterdir() if path.name in file.name} - {path.name, f"{path.name}.lock"}
    return found | dict.fromkeys(beside, b"")


def check_reads(path, maps):
    store = open_store(path)
    for image_id, codes in maps.items():
        assert np.array_equal(store.read(image_id), codes)
        assert store.damage(image_id) is None
    return store


METADATA = {
    "zarr.json",
    *(f"{name}/zarr.json" for name in ("prob", "done", "ids", "sizes")),
    *("done/c/0", "ids/c/0", "sizes/c/0/0"),
}


def check_packed(path, maps, fingerprint):
    store = check_reads(path, maps)
    assert store.packed is not None
    assert store.fingerprint() == fingerprint
    chunks = range(-(-len(maps) // 3))
    assert set(files(path)) == METADATA | {chunk_key(at) for at in chunks}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_packed_store_is_the_same_store(tmp_path, dtype, count):
    maps = maps_of(count, dtype)
    path = written(tmp_path / "s.zarr", maps)
    plain = open_store(path)
    facts = ("ids", "sizes", "dtype", "shape", "full_scale", "provenance")
    others = {name: content for name, content in files(path).items() if not name.startswith("prob/")}
    assert pack_store(path) == count
    check_packed(path, maps, plain.fingerprint())
    store = open_store(path)
    assert [getattr(store, fact) for fact in facts] == [getattr(plain, fact) for fact in facts]
    assert store.missing() == []
    assert {name: content for name, content in files(path).items() if not name.startswith("prob/")} == others
    before = files(path)
    assert pack_store(path) == 0
    assert files(path) == before


def test_the_metadata_change_in_layout_alone(tmp_path):
    path = written(tmp_path / "s.zarr", maps_of())
    before = json.loads((path / "prob" / "zarr.json").read_text())
    pack_store(path)
    after = json.loads((path / "prob" / "zarr.json").read_text())
    changed = {"chunk_grid", "chunk_key_encoding", "codecs"}
    assert {key for key in before | after if before.get(key) != after.get(key)} == changed
    assert after["chunk_grid"]["configuration"]["chunk_shape"] == [3, 17, 61]
    assert after["codecs"] == [{"name": "carvana_ens.packed"}]


def test_what_the_maps_take(tmp_path):
    path = written(tmp_path / "s.zarr", maps_of())
    chunks = {name: len(content) for name, content in files(path).items() if name.startswith("prob/c/")}
    assert len(chunks) == 7
    assert maps_size(path, packed=False) == sum(chunks.values())
    (path / "prob" / ".c.0.0.0.1234.partial").write_bytes(b"left")
    assert maps_size(path, packed=False) == sum(chunks.values())
    pack_store(path)
    assert maps_size(path, packed=True) == sum(len(files(path)[chunk_key(at)]) for at in range(3))


def test_maps_are_worked_on_in_one_go_over_all_chunks(tmp_path):
    asked = []

    def each(one, ids):
        asked.append(list(ids))
        return map(one, ids)

    path = written(tmp_path / "s.zarr", maps_of())
    assert pack_store(path, each) == 7
    assert asked == [list(maps_of())]


def rewritten(path, **layout):
    """The store with its maps in a layout that is not ours."""
    group = zarr.open_group(path, mode="r+")
    whole = group["prob"][:]
    del group["prob"]
    options = {"chunks": (1, *whole.shape[1:]), "compressors": [ZstdCodec(), Crc32cCodec()], "fill_value": 0}
    prob = group.create_array(
        "prob", shape=whole.shape, dtype=whole.dtype, serializer=BytesCodec(endian=None), **(options | layout)
    ).with_config({"write_empty_chunks": True})
    prob[:] = whole
    return path


@pytest.mark.parametrize(
    "layout",
    [
        {"chunk_key_encoding": {"name": "default", "separator": "."}},  # its chunks have the names of ours
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunks": (1, 17, 61), "shards": (4, 17, 61)},
        {"compressors": None},
    ],
    ids=["names of ours", "v2", "shards", "not compressed"],
)
def test_a_foreign_layout_is_refused_and_left_alone(tmp_path, layout):
    maps = maps_of()
    path = rewritten(written(tmp_path / "s.zarr", maps), **layout)
    before = files(path)
    with pytest.raises(StoreError, match=r"s\.zarr has a layout that is not ours: export it first"):
        pack_store(path)
    assert files(path) == before
    check_reads(path, maps)


def test_what_cannot_be_packed_is_left_as_it_was(tmp_path):
    maps = maps_of()
    with pytest.raises(StoreError, match="is no probability store"):
        pack_store(tmp_path / "nothing.zarr")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match=r"is at an address: pack the store in a folder, then copy it there"):
        pack_store("s3://bucket/m.zarr")
    half = written(tmp_path / "half.zarr", maps, leave=("img_03",))
    before = files(half)
    with pytest.raises(StoreError, match=r"half\.zarr lacks 1 of 7 maps, first img_03"):
        pack_store(half)
    assert files(half) == before
    busy = written(tmp_path / "busy.zarr", maps)
    with place_of(busy).lock(), pytest.raises(StoreError, match=r"busy\.zarr is being written by process"):
        pack_store(busy)
    assert open_store(busy).packed is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda chunk: chunk.write_bytes(b"?" + chunk.read_bytes()[1:]), r"the chunk of img_04 is damaged"),
        (lambda chunk: chunk.unlink(), "the chunk of img_04 is gone"),
        (
            lambda chunk: shutil.copy(chunk.parents[2] / "5" / "0" / "0", chunk),
            r"the map of img_04 differs from its done record: see carvana-ens verify",
        ),
    ],
    ids=["damaged", "gone", "another's"],
)
def test_damage_is_named_and_nothing_is_lost(tmp_path, change, told):
    maps = {f"img_{number:02d}": codes for number, codes in enumerate(list(maps_of(1).values()) * 4)}
    maps |= {f"img_{number:02d}": codes for number, codes in enumerate([maps["img_00"][::-1]] * 3, start=4)}
    maps["img_05"] = maps["img_05"] // 2
    path = written(tmp_path / "s.zarr", maps)
    change(path / "prob" / "c" / "4" / "0" / "0")
    before = files(path)
    with pytest.raises(StoreError, match=told):
        pack_store(path)
    after = files(path)
    assert before.items() <= after.items()
    assert set(after) - set(before) <= {chunk_key(0)}
    store = open_store(path)
    assert isinstance(store._reader, DirectReader)
    assert np.array_equal(store.read("img_06"), maps["img_06"])


def test_a_stopped_packing_goes_on_with_what_is_missing(tmp_path):
    maps = maps_of()
    path = written(tmp_path / "s.zarr", maps)
    fingerprint = open_store(path).fingerprint()

    def stopping(one, ids):
        for number, image_id in enumerate(ids):
            if number == 4:
                raise KeyboardInterrupt
            yield one(image_id)

    with pytest.raises(KeyboardInterrupt):
        pack_store(path, stopping)
    assert open_store(path).packed is None
    assert pack_store(path) == 4  # img_03 was worked on, but its chunk was not whole
    check_packed(path, maps, fingerprint)


def test_a_chunk_that_was_left_by_other_maps_is_not_believed(tmp_path):
    maps = maps_of()
    path = written(tmp_path / "s.zarr", maps)
    other = written(
        tmp_path / "o.zarr", dict(zip(maps, maps_of(14).values(), strict=False)) | {"img_04": maps["img_04"] // 2}
    )
    pack_store(other)
    for at, content in enumerate([(other / chunk_key(at)).read_bytes() for at in range(3)]):
        (path / chunk_key(at)).write_bytes(content if at else content[: len(content) // 2][:90])
    fingerprint = open_store(path).fingerprint()
    assert pack_store(path) == 6  # the last chunk holds the same map
    check_packed(path, maps, fingerprint)


def stopped_at(number, where):
    """Makes the numberth call that changes a file raise, before it or after it."""
    calls = Counter()

    def wrapped(real):
        def call(*args, **kwargs):
            calls["all"] += 1
            if calls["all"] == number and where == "before":
                raise KeyboardInterrupt
            mine = calls["all"]
            try:
                return real(*args, **kwargs)
            finally:
                if mine == number and where == "after":
                    raise KeyboardInterrupt

        return call

    patch = pytest.MonkeyPatch()
    for owner, name in ((os, "fsync"), (Path, "replace"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
        patch.setattr(owner, name, wrapped(getattr(owner, name)))
    return patch


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_stop_at_any_file_leaves_a_whole_store(tmp_path, where):
    maps = maps_of(4)
    plain = written(tmp_path / "plain.zarr", maps)
    fingerprint = open_store(plain).fingerprint()
    states, number, stopped = Counter(), 0, True
    while stopped:
        number += 1
        path = tmp_path / f"{number}" / "s.zarr"
        shutil.copytree(plain, path)
        patch = stopped_at(number, where)
        try:
            pack_store(path)
            stopped = False
        except KeyboardInterrupt:
            pass
        finally:
            patch.undo()
        store = check_reads(path, maps)
        assert store.fingerprint() == fingerprint
        states["packed" if store.packed else "plain"] += stopped
        pack_store(path)
        check_packed(path, maps, fingerprint)
    assert states["plain"] > 8
    assert states["packed"] > 8


SLOWLY = """
import sys, time
from pathlib import Path
from carvana_ens.store import packing
packing.IMAGES = 3
def each(one, ids):
    for image_id in ids:
        time.sleep(0.004)
        yield one(image_id)
print("ready", flush=True)
sys.stdin.readline()
packing.pack_store(Path(sys.argv[1]), each)
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_store(tmp_path):
    maps = maps_of(40)
    plain = written(tmp_path / "plain.zarr", maps)
    fingerprint = open_store(plain).fingerprint()
    rng, between = np.random.default_rng(20), 0
    for number in range(10):
        path = tmp_path / f"{number}" / "s.zarr"
        shutil.copytree(plain, path)
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, str(path)],
            env={**os.environ, "PYTHONPATH": str(Path(carvana_ens.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        after, until = rng.integers(0, 14), time.monotonic() + 240
        while len(list((path / "prob").glob("c.*"))) < after and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        store = check_reads(path, maps)
        between += store.packed is None and (path / chunk_key(0)).exists()
        assert store.fingerprint() == fingerprint
        pack_store(path)
        for left in path.parent.glob(".s.zarr.writer.json.*.partial"):
            left.unlink()  # the note of who holds the lock was being written
        check_packed(path, maps, fingerprint)
    assert between > 0


def test_a_packed_store_is_opened_for_writing_but_not_written(tmp_path):
    maps = maps_of()
    path = written(tmp_path / "s.zarr", maps)
    pack_store(path)
    before = files(path)
    sizes = [Size(*codes.shape) for codes in maps.values()]
    with StoreWriter(path, tuple(maps), sizes, HERE) as writer:
        assert writer.missing() == []
        for write, values in ((writer.write_codes, maps["img_00"]), (writer.write, np.zeros((17, 61), np.float32))):
            with pytest.raises(StoreError, match=r"s\.zarr is packed, and packed stores are not written: .*export"):
                write("img_00", values)
    assert files(path) == before


@pytest.mark.parametrize("images", [0, 2, 4, 10**9])
def test_metadata_that_lie_about_the_chunks(tmp_path, images):
    """Refused when the store is opened or an image read; nothing is allocated for a thousand million images."""
    path = written(tmp_path / "s.zarr", maps_of())
    pack_store(path)
    document = json.loads((path / "prob" / "zarr.json").read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = images
    (path / "prob" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"s\.zarr"):
        open_store(path).read("img_00")


def test_the_most_images_of_a_chunk_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "IMAGES", MOST)
    maps = maps_of()
    path = written(tmp_path / "s.zarr", maps)
    pack_store(path)
    assert check_reads(path, maps).packed is not None


def test_headers_of_many_chunks_are_not_kept(tmp_path):
    maps = maps_of(40)
    path = written(tmp_path / "s.zarr", maps)
    pack_store(path)
    store = check_reads(path, maps)
    assert isinstance(store.packed, PackedReader)
    assert len(store.packed._chunks) == 8
    for image_id in [*reversed(maps), *list(maps)[::5]]:
        assert np.array_equal(store.read(image_id), maps[image_id])


@pytest.mark.parametrize("how", ["gone", "folder", "size", "image"])
def test_a_chunk_that_is_not_the_images(tmp_path, how):
    maps = maps_of()
    path = written(tmp_path / "s.zarr", maps)
    pack_store(path)
    file = path / chunk_key(1)
    told = {
        "gone": "the chunk of img_03 is gone although its map is recorded as done",
        "folder": "the chunk of img_03 cannot be read: Is a directory$",
        "size": "the chunk of img_03 holds it as 17x61, expected 17x1",
        "image": "the map of img_03 differs from its done record",
    }[how]
    if how in ("gone", "folder"):
        file.unlink()
        if how == "folder":
            file.mkdir()
    elif how == "size":
        shutil.copy(path / chunk_key(0), file)
    else:
        other = written(tmp_path / "o.zarr", {i: codes // 2 for i, codes in maps.items()})
        pack_store(other)
        shutil.copy(other / chunk_key(1), file)
    store = open_store(path)
    with pytest.raises(StoreError, match=told):
        store.read("img_03")
    assert "img_03" in store.damage("img_03")
    assert store.damage("img_00") is None


def test_a_reader_of_before_says_that_the_store_was_packed_meanwhile(tmp_path):
    """Nothing is wrong with the store: whoever deleted it, as is said of damage, would lose it."""
    path = written(tmp_path / "s.zarr", maps_of())
    before = open_store(path)
    before.read("img_03")
    pack_store(path)
    told = r"img_03 .*: the store was packed or made anew meanwhile, run the command again$"
    with pytest.raises(StoreError, match=told):
        before.read("img_03")
    assert open_store(path).damage("img_03") is None
