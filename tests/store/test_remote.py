"""Stores on an object store: a real S3 server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import obstore
import obstore.store
import pytest
import zarr
from zarr.codecs import GzipCodec

from carvana_ens.ensemble.blending import blend
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.store import bucket as bucket_module
from carvana_ens.store.lock import holder_note, holder_state
from carvana_ens.store.packing import pack_store
from carvana_ens.store.place import place_of
from carvana_ens.store.remove import remove_store
from carvana_ens.store.repair import remove_leftovers
from carvana_ens.store.schema import Provenance, attributes
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

IDS = ("a_01", "a_02", "007")
SIZES = (Size(30, 41), Size(30, 41), Size(25, 40))
HERE = Provenance(member={"name": "m", "model": "x"}, split="test", seen="none")


def codes():
    rng = np.random.default_rng(3)
    maps = {i: rng.integers(0, 256, size, dtype=np.uint8) for i, size in zip(IDS, SIZES, strict=True)}
    maps["a_02"][:] = 0
    return maps


def test_a_store_at_an_address_is_a_store(bucket):
    url = f"{bucket}/stores/m/test.zarr"
    with pytest.raises(StoreError, match="no probability store"):
        open_store(url)
    maps = codes()
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        writer.write_codes("a_01", maps["a_01"])
        with pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"):
            StoreWriter(url, IDS, SIZES, HERE).__enter__()
    assert open_store(url).missing() == ["a_02", "007"]
    with StoreWriter(url, IDS, SIZES, HERE) as writer:  # goes on
        for image_id in writer.missing():
            writer.write_codes(image_id, maps[image_id])
    store = open_store(url)
    store.require_complete()
    for image_id in IDS:
        np.testing.assert_array_equal(store.read(image_id), maps[image_id])
        assert store.damage(image_id) is None
    plain = zarr.open_group(zarr.storage.ObjectStore(obstore.store.from_url(url), read_only=True), mode="r")
    np.testing.assert_array_equal(plain["prob"][0], maps["a_01"])
    with pytest.raises(StoreError, match="another member model"):
        StoreWriter(
            url, IDS, SIZES, Provenance(member={"name": "m", "model": "y"}, split="test", seen="none")
        ).__enter__()


def test_an_address_blends_with_a_folder(bucket, tmp_path):
    maps = codes()
    for place in (f"{bucket}/a.zarr", tmp_path / "b.zarr"):
        with StoreWriter(place, IDS, SIZES, HERE) as writer:
            for image_id in IDS:
                writer.write_codes(image_id, maps[image_id])
    stores = {"a": open_store(f"{bucket}/a.zarr"), "b": open_store(tmp_path / "b.zarr")}
    assert stores["a"].fingerprint() == stores["b"].fingerprint()
    for image_id, mask in blend(stores, "a=2,b=1", "0.5"):
        np.testing.assert_array_equal(mask, maps[image_id] >= 128)


def test_a_stop_while_creating_leaves_no_store_and_the_next_writer_makes_it(bucket, monkeypatch):
    url = f"{bucket}/m.zarr"

    real = attributes

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("carvana_ens.store.writer.attributes", stop)
    with pytest.raises(KeyboardInterrupt):
        StoreWriter(url, IDS, SIZES, HERE).__enter__()
    monkeypatch.setattr("carvana_ens.store.writer.attributes", real)
    with pytest.raises(StoreError, match="no probability store"):
        open_store(url)
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        assert writer.missing() == list(IDS)
    assert open_store(url).ids == IDS
    assert set(zarr.open_group(zarr.storage.ObjectStore(obstore.store.from_url(url)), mode="r").attrs) == {
        "carvana_ens"
    }


def test_a_lost_chunk_is_found(bucket):
    url = f"{bucket}/m.zarr"
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        writer.write_codes("a_02", codes()["a_02"])
    obstore.delete(obstore.store.from_url(url), "prob/c/1/0/0")
    with pytest.raises(StoreError, match="chunk of a_02 is gone"):
        open_store(url).read("a_02")


@pytest.mark.parametrize("shards", [None, (2, 30, 41)])
def test_another_layout_at_an_address_is_read_through_zarr(bucket, shards):
    url = f"{bucket}/m.zarr"
    maps = codes()
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        for image_id in IDS:
            writer.write_codes(image_id, maps[image_id])
    group = zarr.open_group(zarr.storage.ObjectStore(obstore.store.from_url(url)), mode="r+")
    whole = group["prob"][:]
    del group["prob"]
    prob = group.create_array(
        "prob", shape=whole.shape, chunks=(1, 30, 41), shards=shards, dtype="uint8", compressors=[GzipCodec()]
    )
    prob.with_config({"write_empty_chunks": True})[0] = whole[0]
    prob.with_config({"write_empty_chunks": True})[2] = whole[2]
    store = open_store(url)
    np.testing.assert_array_equal(store.read("a_01"), maps["a_01"])
    np.testing.assert_array_equal(store.read("007"), maps["007"])
    with pytest.raises(StoreError, match=r"m\.zarr: the chunk of a_02 is gone"):
        store.read("a_02")  # all zero, as zarr would read it


def test_a_killed_writer_leaves_its_lock_and_its_name(bucket):
    url = f"{bucket}/m.zarr"
    program = (
        "import os, sys\n"
        "from carvana_ens.store.place import place_of\n"
        "with place_of(sys.argv[1]).lock():\n"
        "    print(os.getpid(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    with pytest.raises(
        StoreError, match=f"process {killed.stdout.strip()} on .* --break-lock, which deletes the object {url}.lock"
    ):
        StoreWriter(url, IDS, SIZES, HERE).__enter__()
    parent = obstore.store.from_url(bucket)
    assert json.loads(bytes(obstore.get(parent, "m.zarr.lock").bytes()))["pid"] == int(killed.stdout)
    obstore.delete(parent, "m.zarr.lock")
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        assert writer.missing() == list(IDS)


def test_an_address_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"pip install 'carvana-ens\[s3\]'"):
        open_store("s3://bucket/m.zarr")


def test_what_is_no_address_or_no_server_is_one_line(bucket, monkeypatch):
    with pytest.raises(UsageError, match="is no address of a store"):
        open_store("nonsense://x/y.zarr")
    with pytest.raises(StoreError) as caught:
        open_store(f"{bucket}-that-is-not-there/y.zarr")
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match=r"^[^\n]* cannot be written: [^\n]*404 Not Found, NoSuchBucket$"):
        StoreWriter(f"{bucket}-that-is-not-there/y.zarr", IDS, SIZES, HERE).__enter__()
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreError, match=r"^[^\n]* cannot be read: [^\n]*, an endpoint of http takes AWS_ALL"):
        open_store(f"{bucket}/y.zarr")
    asked = "Error performing PUT http://169.254.169.254/latest/api/token"
    assert bucket_module.told(RuntimeError(f"{asked}\n\nmore")) == (
        f"{asked}, no keys were found, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def copied(folder, url):
    """The address, after every file of a store was put there."""
    address = obstore.store.from_url(url)
    for file in folder.rglob("*"):
        if file.is_file():
            obstore.put(address, file.relative_to(folder).as_posix(), file.read_bytes())
    return address


def test_a_packed_store_is_copied_there_and_blended(bucket, tmp_path):
    """Only the parts that a blend needs are asked for; without cold parts nothing of length 0 is."""
    maps = codes() | {"007": np.full((25, 40), 250, np.uint8)}
    stores = {}
    for name in "ab":
        with StoreWriter(tmp_path / f"{name}.zarr", IDS, SIZES, HERE) as writer:
            for image_id in IDS:
                writer.write_codes(image_id, maps[image_id] if name == "a" else 255 - maps[image_id])
        pack_store(tmp_path / f"{name}.zarr")
        copied(tmp_path / f"{name}.zarr", f"{bucket}/{name}.zarr")
        stores[name] = open_store(f"{bucket}/{name}.zarr")
        assert stores[name].fingerprint() == open_store(tmp_path / f"{name}.zarr").fingerprint()
    for image_id in IDS:
        assert stores["a"].packed is not None
        np.testing.assert_array_equal(stores["a"].read(image_id), maps[image_id])
        assert stores["b"].damage(image_id) is None
    for weights, a, b in (("a=2,b=1", 2, 1), ("equal", 1, 1)):
        for image_id, mask in blend(stores, weights, "0.5"):
            sums = a * maps[image_id].astype(int) + b * (255 - maps[image_id].astype(int))
            np.testing.assert_array_equal(mask, 2 * sums >= 255 * (a + b))
    place = zarr.storage.ObjectStore(obstore.store.from_url(f"{bucket}/a.zarr"), read_only=True)
    np.testing.assert_array_equal(zarr.open_group(place, mode="r")["prob"][2, :25, :40], maps["007"])


def test_a_packed_chunk_that_is_lost_or_cut_at_an_address_is_named(bucket, tmp_path):
    with StoreWriter(tmp_path / "m.zarr", IDS, SIZES, HERE) as writer:
        for image_id in IDS:
            writer.write_codes(image_id, codes()[image_id])
    pack_store(tmp_path / "m.zarr")
    url, chunk = f"{bucket}/m.zarr", (tmp_path / "m.zarr" / "prob" / "c.0.0.0").read_bytes()
    address = copied(tmp_path / "m.zarr", url)
    for content in (b"", chunk[:1000], chunk[: len(chunk) // 2], chunk[:-1]):
        obstore.put(address, "prob/c.0.0.0", content)
        with pytest.raises(StoreError, match=r"the chunk of 007 (is damaged|cannot be read)") as caught:
            open_store(url).read("007")
        assert "\n" not in str(caught.value)
    obstore.delete(address, "prob/c.0.0.0")
    with pytest.raises(StoreError, match="the chunk of a_01 is gone"):
        open_store(url).read("a_01")


def filled(url):
    """A store with all its maps."""
    with StoreWriter(url, IDS, SIZES, HERE) as writer:
        for image_id in IDS:
            writer.write_codes(image_id, codes()[image_id])
    return url


def keys(url):
    return [entry["path"] for batch in obstore.list(obstore.store.from_url(url)) for entry in batch]


def test_a_store_is_removed_and_a_stop_leaves_none_that_can_be_opened(bucket, monkeypatch):
    url, other = filled(f"{bucket}/m/test.zarr"), filled(f"{bucket}/m/test.zarr2.zarr")
    place = place_of(url)
    assert place.size() == sum(len(place.get(key)) for key in keys(url)) > 0
    assert place_of(f"{bucket}/m").stores() == [url, other]
    assert place_of(bucket).stores() == []  # stores lie in it one folder down

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "delete", stop)
        with pytest.raises(KeyboardInterrupt):
            place.remove()
    assert not place.exists()
    assert place_of(f"{bucket}/m").stores() == [other]
    assert place_of(f"{bucket}/m").begun() == [url]
    with pytest.raises(StoreError, match="no probability store"):
        open_store(url)
    remove_store(url)  # nothing is there to be removed
    assert remove_leftovers(url)[0] == 1
    assert (keys(url), place_of(f"{bucket}/m").begun()) == ([], [])
    remove_store(other)
    assert keys(f"{bucket}/m") == []


def test_whoever_lost_its_lock_writes_no_records_and_keeps_the_other_ones_lock(bucket):
    url = f"{bucket}/m.zarr"
    with StoreWriter(url, IDS, SIZES, HERE) as first:
        first.write_codes("a_01", codes()["a_01"])
        obstore.delete(obstore.store.from_url(bucket), "m.zarr.lock")
        second = StoreWriter(url, IDS, SIZES, HERE).__enter__()
        with pytest.raises(StoreError, match="is not locked by this process any more"):
            first.write_codes("a_02", codes()["a_02"])
    with pytest.raises(StoreError, match="is being written by"):  # still the second's
        place_of(url).lock().__enter__()
    second.write_codes("007", codes()["007"])
    second.__exit__(None, None, None)
    assert open_store(url).missing() == ["a_02"]


def test_a_lock_whose_answer_was_lost_is_held(bucket, monkeypatch):
    put, lost = obstore.put, [True]

    def losing(*words, **more):
        done = put(*words, **more)
        if more.get("mode") == "create" and lost.pop():
            raise obstore.exceptions.GenericError("connection closed")
        return done

    monkeypatch.setattr(obstore, "put", losing)
    with place_of(f"{bucket}/m.zarr").lock("mine"):
        assert (lost, place_of(f"{bucket}/m.zarr").writer()) == ([], "mine")
    assert place_of(f"{bucket}/m.zarr").writer() is None


def test_a_lock_that_could_not_be_removed_stops_others_and_not_its_own_process(bucket, monkeypatch):
    url = f"{bucket}/m.zarr"

    def gone(*_):
        raise obstore.exceptions.GenericError("no server")

    def fail():
        with monkeypatch.context() as patch, place_of(url).lock():
            patch.setattr(obstore, "delete", gone)
            patch.setattr(bucket_module, "TRIES", 1)
            raise StoreError("disk on fire")

    with pytest.raises(StoreError, match=r"^disk on fire; its lock is left there, which --break-lock takes$"):
        fail()
    other = "import sys\nfrom carvana_ens.store.place import place_of\nplace_of(sys.argv[1]).lock().__enter__()"
    done = subprocess.run([sys.executable, "-c", other, url], capture_output=True, text=True, check=False)
    assert f"is being written by process {os.getpid()} on" in done.stderr.splitlines()[-1]
    filled(url)
    assert place_of(url).break_lock() is None


def note(**said):
    return json.dumps(holder_note("") | said).encode()


def test_what_is_known_of_who_holds_a_lock():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while holder_state(note(pid=ended.pid, begun="")) == "running":
        time.sleep(0.01)
    assert holder_state(note(pid=ended.pid)) == "ended"  # though nobody has waited for it
    ended.wait()
    assert holder_state(note()) == "running"
    assert holder_state(note(begun="")) == "running"  # by a system that does not say
    assert holder_state(note(begun="another boot 12")) == "ended"  # the number is another process's now
    assert holder_state(note(host="elsewhere")) == "unknown"
    for other in (b"", b"{}", b"[]", b"7", note(pid="x"), note(pid=2**70), note(pid=None)):
        assert holder_state(other) == "unknown"


def test_what_a_sleeping_machine_lost_is_asked_for_once_more(bucket, monkeypatch):
    filled(f"{bucket}/m.zarr")
    get, lost = obstore.get, [True]

    def losing(*words):
        if lost and lost.pop():
            raise obstore.exceptions.GenericError("timed out")
        return get(*words)

    monkeypatch.setattr(bucket_module, "PATIENCE", -1.0)
    monkeypatch.setattr(obstore, "get", losing)
    np.testing.assert_array_equal(open_store(f"{bucket}/m.zarr").read("a_01"), codes()["a_01"])
    assert lost == []
