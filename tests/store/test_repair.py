"""Stores mended: damaged maps marked and made again, leftovers removed, and what damage of any kind leads to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from carvana_ens.ensemble.blending import Blend
from carvana_ens.errors import CarvanaEnsError, StoreError
from carvana_ens.store.documents import altered
from carvana_ens.store.packing import pack_store
from carvana_ens.store.place import place_of
from carvana_ens.store.prints import prints_damage
from carvana_ens.store.repair import forget_maps, leftovers, remove_leftovers, restore_documents
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

FLIPS, CUTS = (200, 50) if os.environ.get("CARVANA_ENS_STRESS") else (40, 12)


def continued(path):
    store = open_store(path)
    return StoreWriter(path, store.ids, store.sizes, store.provenance, store.dtype)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_forgotten_maps_are_missing_and_can_be_made_again(tmp_path, provenance, codes, packed, dtype):
    path = tmp_path / "m.zarr"
    codes = {i: c.astype(dtype) * (257 if dtype == "uint16" else 1) for i, c in codes.items()}
    codes = {i: c.astype(dtype) for i, c in codes.items()}
    with StoreWriter(path, list(codes), [Size(*c.shape) for c in codes.values()], provenance, dtype) as writer:
        for image_id, values in codes.items():
            writer.write_codes(image_id, values)
    whole = open_store(path).fingerprint()
    if packed:
        pack_store(path)
    forget_maps(path, ["a_02", "007"])
    store = open_store(path)
    assert store.packed is None
    assert store.missing() == ["a_02", "007"]
    with pytest.raises(StoreError, match="no map of a_02 yet"):
        store.read("a_02")
    for image_id in ("a_01", "b_01"):
        assert np.array_equal(store.read(image_id), codes[image_id])
    assert leftovers(path) == []
    with continued(path) as writer:
        for image_id in writer.missing():
            writer.write_codes(image_id, codes[image_id])
    mended = open_store(path)
    assert mended.fingerprint() == whole
    assert all(np.array_equal(mended.read(i), values) for i, values in codes.items())
    assert pack_store(path) == len(codes)


def test_a_packed_store_with_damage_keeps_what_is_whole(stored, codes):
    pack_store(stored)
    (chunk,) = (stored / "prob").glob("c.*")
    octets = bytearray(chunk.read_bytes())
    at = next(at for at in range(len(octets) // 2, len(octets)) if damaged(stored, chunk, octets, at))
    octets[at] ^= 1
    chunk.write_bytes(octets)
    bad = [i for i in codes if open_store(stored).damage(i)]
    assert bad
    forget_maps(stored, bad)
    assert open_store(stored).missing() == bad
    assert all(np.array_equal(open_store(stored).read(i), codes[i]) for i in codes if i not in bad)


def damaged(path, chunk, octets, at):
    """Whether a flipped bit there spoils some map and not all of them."""
    changed = bytearray(octets)
    changed[at] ^= 1
    chunk.write_bytes(changed)
    found = [open_store(path).damage(i) is not None for i in open_store(path).ids]
    chunk.write_bytes(octets)
    return any(found) and not all(found)


def test_what_cannot_be_forgotten(stored):
    with pytest.raises(StoreError, match="has no image 'x'"):
        forget_maps(stored, ["x"])
    with continued(stored), pytest.raises(StoreError, match="is being written by process"):
        forget_maps(stored, ["a_01"])


def test_leftovers_of_every_kind_are_removed_and_nothing_else(stored, codes):
    before = sorted(path for path in stored.rglob("*") if path.is_file())
    whole = open_store(stored).fingerprint()
    assert leftovers(stored) == []
    made = stored.with_name(".test.zarr.0123.partial")
    shutil.copytree(stored, made)
    left = [
        made,
        stored / "prob" / "c" / "0" / "0" / "0.0123.partial",
        stored / "prob" / "c.5",
        stored / "prob" / ".zarr.json.0123.partial",
    ]
    for path in left[1:]:
        path.write_bytes(b"1234")
    note = stored.with_name("test.zarr.writer.json")
    note.write_text("{}")
    assert sorted(leftovers(stored)) == sorted([*left, note])
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    with continued(stored), pytest.raises(StoreError, match="is being written by process"):
        remove_leftovers(stored)
    assert remove_leftovers(stored) == (4, size + 12)
    assert sorted(path for path in stored.rglob("*") if path.is_file()) == before
    assert open_store(stored).fingerprint() == whole
    assert remove_leftovers(stored) == (0, 0)
    pack_store(stored)
    (stored / "prob" / "c" / "0").mkdir(parents=True)
    assert leftovers(stored) == [stored / "prob" / "c"]
    assert remove_leftovers(stored)[0] == 1
    assert all(np.array_equal(open_store(stored).read(i), values) for i, values in codes.items())


def test_a_store_that_was_never_finished_leaves_nothing(tmp_path):
    folder = tmp_path / "m"
    (folder / ".oof.zarr.0123.partial" / "prob").mkdir(parents=True)
    (folder / "test.zarr").mkdir()
    assert place_of(folder).begun() == [folder / "oof.zarr"]
    assert remove_leftovers(folder / "oof.zarr")[0] == 1
    assert place_of(folder).begun() == []


def files(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def verified(path, codes):
    """What is wrong, in words, as ``verify`` finds it; None where nothing is."""
    try:
        store = open_store(path)
        damage = [line for image_id in codes if (line := store.damage(image_id))]
        return altered(store) or store.missing() or damage or prints_damage(place_of(path), len(codes)) or None
    except CarvanaEnsError as error:
        return str(error)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("schema", [1, 2])
def test_every_flipped_bit_and_every_cut_is_found(stored, codes, packed, schema):
    """Every octet of a store is under a checksum, or known; where a map can still be read, it is the right one."""
    if schema == 1:
        as_of_schema_1(stored)
    else:
        with continued(stored) as writer:
            writer.photo = len
            writer.record((image_id, open_store(stored).record(image_id)) for image_id in codes)
    if packed:
        pack_store(stored)
    assert verified(stored, codes) is None
    other = stored.with_name("other.zarr")
    shutil.copytree(stored, other)
    right = blended(stored, other)
    assert right is not None
    rng = np.random.default_rng(packed)
    for number in range(FLIPS + CUTS):
        file = rng.choice(files(stored) if number % 2 else sorted(stored.rglob("zarr.json")))
        octets = file.read_bytes()
        if number < FLIPS:
            changed = bytearray(octets)
            place = rng.integers(len(octets))
            if schema == 1 and file == stored / "zarr.json":
                place = rng.integers(octets.index(b'"provenance"'))  # its values had no checksum over them
            changed[place] ^= 1 << rng.integers(8)
        else:
            changed = octets[: rng.integers(len(octets))]
        file.write_bytes(changed)
        assert verified(stored, codes) is not None, (file, changed)
        check_maps(stored, codes)
        assert blended(stored, other) in (None, right), (file, changed)
        file.write_bytes(octets)
    assert verified(stored, codes) is None


def check_maps(path, codes):
    """A damaged store is refused, or what can be read of it is right: so is what a blend makes of it."""
    try:
        store = open_store(path)
        assert store.ids == tuple(codes)
        assert all(store.sizes[n] == c.shape for n, c in enumerate(codes.values()))
        damage = {i: store.damage(i) for i in codes}
    except CarvanaEnsError:
        return
    for image_id, line in damage.items():
        assert line is not None or np.array_equal(store.read(image_id), codes[image_id])


def blended(path, other):
    """The rows of a blend of two stores; None where it refuses."""
    try:
        stores = {"a": open_store(path), "b": open_store(other)}
        return list(Blend(stores, {"a": 2, "b": 1}, "0.5").rles(1))
    except CarvanaEnsError:
        return None


def as_of_schema_1(path):
    """What the first versions wrote: no sha256 of the attributes."""
    document = json.loads((path / "zarr.json").read_text())
    ours = document["attributes"]["carvana_ens"]
    del ours["sha256"]
    ours["schema"] = 1
    (path / "zarr.json").write_text(json.dumps(document, indent=2))


@pytest.mark.parametrize("packed", [False, True])
def test_documents_that_mean_the_same_are_written_anew(stored, codes, packed):
    if packed:
        pack_store(stored)
    before = {file: file.read_bytes() for file in files(stored)}
    changes = {
        "zarr.json": (b"{", b"{ "),
        "prob/zarr.json": (b'"fill_value": 0', b'"fill_value": 1'),
        "done/zarr.json": (b'"separator": "/"', b'"separator": "."'),
        "ids/zarr.json": (b'"level": 0', b'"level": 2'),
        "sizes/zarr.json": (b'"fill_value": 0', b'"fill_value": 4'),
    }
    for name, change in changes.items():
        (stored / name).write_bytes(before[stored / name].replace(*change, 1))
    assert altered(open_store(stored)) == list(changes)
    with continued(stored), pytest.raises(StoreError, match="is being written by process"):
        restore_documents(stored)
    assert restore_documents(stored) == list(changes)
    assert {file: file.read_bytes() for file in files(stored)} == before
    assert restore_documents(stored) == []


def test_documents_are_the_same_whatever_zarr_writes(tmp_path, provenance):
    """What another zarr might write, and does where it is told to."""

    def made(path):
        with StoreWriter(path, ["a_1", "b_1"], [Size(3, 4), Size(2, 4)], provenance) as writer:
            writer.write_codes("a_1", np.ones((3, 4), np.uint8))
        return {file.relative_to(path): file.read_bytes() for file in files(path)}

    usual = made(tmp_path / "usual.zarr")
    with zarr.config.set({"json_indent": None}):
        assert made(tmp_path / "other.zarr") == usual
    assert altered(open_store(tmp_path / "other.zarr")) == []


def test_maps_in_another_layout_are_not_held_against_it(stored):
    group = zarr.open_group(stored, mode="r+")
    maps = group["prob"][:]
    prob = group.create_array("prob", shape=maps.shape, chunks=(2, 30, 41), dtype="uint8", overwrite=True)
    prob[:] = maps
    assert altered(open_store(stored)) == []


def test_work_that_cannot_fit_is_refused_before_it_begins(small_disk, provenance):
    path, size = small_disk / "a.zarr", Size(1000, 1000)
    with pytest.raises(StoreError, match=r"needs 2\.5 MB more at least, for 500 maps, and 2\.\d MB are free"):
        StoreWriter(path, [f"{n}_1" for n in range(500)], [size] * 500, provenance).__enter__()
    shutil.rmtree(path)
    rng = np.random.default_rng(0)
    ids = [f"{n}_1" for n in range(20)]
    with StoreWriter(path, ids, [Size(300, 400)] * 20, provenance) as writer:
        for image_id in ids[:4]:
            writer.write_codes(image_id, rng.integers(0, 256, (300, 400)).astype(np.uint8))
    with pytest.raises(StoreError, match=r"needs 1\.9 MB more at least, for 16 maps"):
        continued(path).__enter__()
    assert open_store(path).missing() == ids[4:]


SCRIPT = """
import sys
import numpy as np
from carvana_ens import CarvanaEnsError, Size, StoreWriter
from carvana_ens.store.schema import Provenance
path, count = sys.argv[1], 60
ids = [f"{number}_1" for number in range(count)]
said = Provenance(member={"name": "a"}, split="test", seen="none")
try:
    with StoreWriter(path, ids, [Size(200, 300)] * count, said) as writer:
        for image_id in writer.missing():
            number = int(image_id.split("_")[0])
            codes = np.random.default_rng(number).integers(0, 256, (200, 300))
            writer.write_codes(image_id, codes.astype(np.uint8))
except CarvanaEnsError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or shutil.which("mount") is None
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("this system does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_cleanly_and_goes_on(small_disk):
    path = small_disk / "a.zarr"

    def run():
        return subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=False, capture_output=True, text=True)

    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: the map of ")
    assert "No space left on device; what is done is kept" in done.stderr
    assert "Traceback" not in done.stderr
    store = open_store(path)
    there = [i for i in store.ids if i not in store.missing()]
    assert 5 < len(there) < 55
    assert [store.damage(i) for i in there] == [None] * len(there)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run().returncode == 0
    whole = open_store(path)
    assert whole.missing() == []
    assert [whole.damage(i) for i in whole.ids] == [None] * 60
    assert {i: whole.record(i) for i in there} == {i: store.record(i) for i in there}
