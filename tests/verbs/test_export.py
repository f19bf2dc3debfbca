"""carvana-ens export: a plain store of the same maps, from any that can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, GzipCodec

from carvana_ens import open_store
from carvana_ens.errors import UsageError
from carvana_ens.project import Project
from carvana_ens.store.chunks import DirectReader
from carvana_ens.store.writer import StoreWriter
from carvana_ens.verbs.export import Exported, export


@pytest.fixture
def one(project):
    """A project with an imported member."""
    project.codes = project.kept("exportable", lambda: project.imported(("one", 2, 1, 4)))["one"]
    return project


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_same(source, target, codes):
    """A plain store with the maps, ids, sizes, codes and provenance of another."""
    old, new = open_store(source), open_store(target)
    assert isinstance(new._reader, DirectReader)
    assert new.fingerprint() == old.fingerprint()
    facts = ("ids", "sizes", "dtype", "shape", "provenance")
    assert [getattr(new, fact) for fact in facts] == [getattr(old, fact) for fact in facts]
    plain = zarr.open_group(target, mode="r")["prob"]
    assert [codec.to_dict()["name"] for codec in plain.metadata.codecs] == ["bytes", "zstd", "crc32c"]
    for number, image_id in enumerate(new.ids):
        assert np.array_equal(plain[number, : codes[image_id].shape[0], : codes[image_id].shape[1]], codes[image_id])
        assert new.damage(image_id) is None


@pytest.mark.parametrize("how", ["packed", "plain", "foreign"])
def test_the_maps_are_the_same(one, how):
    source, target = one.store("one", "test"), one.root / "out" / "maps.zarr"
    before = files(source)
    if how == "packed":
        one.did("pack")
    elif how == "foreign":
        group = zarr.open_group(source, mode="r+")
        whole = group["prob"][:]
        del group["prob"]
        prob = group.create_array(
            "prob",
            shape=whole.shape,
            chunks=(2, *whole.shape[1:]),
            dtype="uint8",
            serializer=BytesCodec(endian=None),
            compressors=[GzipCodec()],
            fill_value=0,
        )
        prob[:] = whole
    read = files(source)
    done = one.did("export", "one", "--to", "zarr", "-o", target, "--threads", "2")
    assert done.out == f"{target}: 6 maps written, 6 in all\n"
    check_same(source, target, one.codes)
    assert files(source) == read
    if how == "packed":  # byte for byte what was packed
        assert files(target) == before


def test_a_split_is_chosen_and_photos_of_several_sizes_keep_theirs(project, oracle):
    oracle.save_photo(project.test, "b22_04", (40, 90))
    oracle.save_photo(project.test, "b22_05", (71, 48))
    project.did("add-model", "bright-cut")
    project.did("predict", "--dtype", "uint16")
    project.did("pack")
    for split in ("oof", "test"):
        source, target = project.store("bright-cut", split), project.root / f"{split}.zarr"
        project.did("export", "bright-cut", "--split", split, "--to", "zarr", "-o", target)
        store = open_store(source)
        check_same(source, target, {image_id: store.read(image_id) for image_id in store.ids})
    assert open_store(project.root / "test.zarr").dtype == "uint16"
    assert len(set(open_store(project.root / "test.zarr").sizes)) == 3


def test_an_exported_store_can_take_the_place_of_the_packed_one(one):
    one.did("pack")
    one.did("blend", "-o", one.root / "packed.csv")
    one.did("export", "one", "--to", "zarr", "-o", one.root / "maps.zarr")
    source = one.store("one", "test")
    source.rename(one.root / "packed.zarr")
    (one.root / "maps.zarr").rename(source)
    one.did("blend", "-o", one.root / "plain.csv")
    assert (one.root / "plain.csv").read_bytes() == (one.root / "packed.csv").read_bytes()
    assert "6 maps packed" in one.did("pack", "--split", "test").out


def test_a_stopped_export_goes_on(one, monkeypatch):
    one.did("pack")
    target, written, real = one.root / "maps.zarr", [], StoreWriter.write_codes

    def stopping(self, image_id, codes):
        if image_id == "c9d_01":
            raise KeyboardInterrupt
        written.append(image_id)
        real(self, image_id, codes)

    words = ("export", "one", "--to", "zarr", "-o", target)
    monkeypatch.setattr(StoreWriter, "write_codes", stopping)
    assert one.do(*words).code == 130
    assert open_store(target).missing() == ["c9d_01", "c9d_02", "c9d_03"]
    monkeypatch.setattr(StoreWriter, "write_codes", real)
    assert one.did(*words).out == f"{target}: 3 maps written, 6 in all\n"
    assert written == ["b22_01", "b22_02", "b22_03"]
    check_same(one.store("one", "test"), target, one.codes)
    assert f"{target} is there already" in one.do(*words).error


def _folder(target, world):
    target.mkdir()
    (target / "notes.txt").write_text("mine")


def _other_member(target, world):
    world.did("export", "other", "--to", "zarr", "-o", target)


def _begun_by_another(target, world):
    """Half of the maps of another member, in the same photos."""
    old = open_store(world.store("other", "test"))
    with StoreWriter(target, old.ids, old.sizes, old.provenance) as writer:
        writer.write_codes(old.ids[0], old.read(old.ids[0]))


def _begun_with_other_maps(target, world):
    """What a stopped export left, but the maps were made anew since."""
    old = open_store(world.store("one", "test"))
    with StoreWriter(target, old.ids, old.sizes, old.provenance) as writer:
        writer.write_codes(old.ids[0], 255 - old.read(old.ids[0]))


@pytest.mark.parametrize("make", [_folder, _other_member, _begun_by_another, _begun_with_other_maps])
def test_what_is_there_is_left_alone(one, make):
    one.imported(("other", 3, 0, 0))
    target = one.root / "maps.zarr"
    make(target, one)
    before = files(target)
    told = one.do("export", "one", "--to", "zarr", "-o", target).error
    assert told == f"{target} is there already: give another name, or remove it first"
    assert files(target) == before


def test_maps_that_are_not_there_or_damaged(one):
    target = one.root / "maps.zarr"
    words = ("--to", "zarr", "-o", target)
    assert "did you mean 'one'" in one.do("export", "ome", *words).error
    assert "new.zarr is no probability store" in one.do("export", "one", "--split", "new", *words).error
    one.did("add-model", "learned-cut")
    one.did("train", "--fold", "0")
    one.did("predict", "learned-cut", "--fold", "0")
    assert "lacks 4 of 8 maps" in one.do("export", "learned-cut", "--split", "oof", *words).error
    assert not target.exists()
    chunks = one.store("one", "test") / "prob" / "c"
    first = (chunks / "0" / "0" / "0").read_bytes()
    (chunks / "2" / "0" / "0").write_bytes(first)  # whole, but another image's
    told = one.do("export", "one", *words).error
    assert told == (
        f"{one.store('one', 'test')}: the map of b22_03 differs from its done record: see carvana-ens verify"
    )
    assert set(open_store(target).missing()) >= {"b22_03"}
    (chunks / "2" / "0" / "0").write_bytes(first[:-1])
    assert f"{one.store('one', 'test')}: the chunk of b22_03 is damaged" in one.do("export", "one", *words).error


def test_from_python(one):
    seen = []

    def track(items, total, what):
        for item in items:
            seen.append((what, total))
            yield item

    target = Path(one.root / "maps.zarr")
    project = Project(one.cars)
    assert export(project, "one", target, split="oof", track=track) == Exported(target, 8, 8)
    assert seen == [("one oof", 8)] * 8
    with pytest.raises(UsageError, match="format 'jpg' is unknown to export: use zarr"):
        export(project, "one", target, to="jpg")
