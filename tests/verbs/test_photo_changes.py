"""A photo that changed makes its map stale: predict says so, and makes that one anew."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from carvana_ens import open_store
from carvana_ens.data.images import ImageFolder
from carvana_ens.store.prints import LEAST
from carvana_ens.verbs.photo_changes import CHANGING, PhotoPrints

WORDS = ("predict", "--split", "test")
ID = "b22_02"


@pytest.fixture
def predicted(project):
    project.did("add-model", "bright-cut", "--name", "one")
    project.did(*WORDS)
    project.calls()
    return project


def changed(world, image_id=ID, of="c9d_01"):
    """Another photo in place of one, of as many bytes and with the same time."""
    path = world.test / f"{image_id}.jpg"
    before, other = path.stat(), (world.test / f"{of}.jpg").read_bytes()
    size = max(before.st_size, len(other))
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # what stands behind the end of a JPEG is not read
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path, other.ljust(size, b"\0")


def replaced(path, content):
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def asked(world):
    return [image_id for call in world.calls("predict") for image_id in call[2:]]


def maps(world, name="one"):
    store = open_store(world.store(name, "test"))
    return {image_id: store.read(image_id) for image_id in store.ids}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_the_map_of_a_changed_photo_is_made_anew(project, cached, packed):
    path, other = changed(project)
    project.did("add-model", "bright-cut", "--name", "one")
    project.did(*WORDS)
    before = maps(project)
    if packed:
        project.did("pack")
    project.calls()
    replaced(path, other)
    if not cached:
        shutil.rmtree(project.cars / "cache")
    done = project.did(*WORDS)
    assert f"one test: 1 photos changed since their maps were made ('{ID}'): 1 maps are made anew" in done.err
    assert "1 maps predicted, 6 in all" in done.out
    assert asked(project) == [ID]
    after = maps(project)
    assert {i for i in before if not np.array_equal(before[i], after[i])} == {ID}
    assert np.array_equal(after[ID], after["c9d_01"])
    assert "changed" not in project.did(*WORDS).err
    assert asked(project) == []
    fingerprint = open_store(project.store("one", "test")).fingerprint()
    project.did(*WORDS, "--fresh")
    assert open_store(project.store("one", "test")).fingerprint() == fingerprint
    assert "6 right, 0 missing, 0 damaged" in project.did("verify").out


def test_a_photo_that_was_only_touched_or_copied_is_the_same(predicted):
    path = predicted.test / f"{ID}.jpg"
    os.utime(path, (1, 1))
    assert "changed" not in predicted.did(*WORDS).err
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    shutil.rmtree(predicted.cars / "cache")
    assert "changed" not in predicted.did(*WORDS).err
    (next((predicted.cars / "cache" / "photos").glob("*.json"))).write_text("[torn")
    assert "changed" not in predicted.did(*WORDS).err
    assert asked(predicted) == []


def test_every_map_of_a_group_is_made_of_all_its_photos(project):
    project.did("add-model", "group-cut", "--name", "one")
    project.did(*WORDS)
    project.calls()
    shutil.copy(project.test / "c9d_01.jpg", project.test / f"{ID}.jpg")
    done = project.did(*WORDS)
    assert "1 groups of photos changed since their maps were made ('b22'): 3 maps are made anew" in done.err
    (call,) = project.calls("predict")
    assert call[2:] == ["b22", "b22_01", "b22_02", "b22_03"]
    repaired = open_store(project.store("one", "test")).fingerprint()
    project.did(*WORDS, "--fresh")
    assert open_store(project.store("one", "test")).fingerprint() == repaired


def test_a_photo_that_had_no_map_yet_changes_those_of_its_group(project):
    project.did("add-model", "group-cut", "--name", "one")
    project.did(*WORDS)
    store = project.store("one", "test")
    chunk = store / "prob" / "c" / str(list(open_store(store).ids).index(ID)) / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    project.did("verify", "--repair")
    assert open_store(store).missing() == [ID]
    shutil.copy(project.test / "c9d_01.jpg", project.test / f"{ID}.jpg")
    assert "('b22'): 2 maps are made anew" in project.did(*WORDS).err
    repaired = open_store(store).fingerprint()
    project.did(*WORDS, "--fresh")
    assert open_store(store).fingerprint() == repaired


def test_a_refused_run_takes_nothing_back(predicted):
    shutil.copy(predicted.test / "c9d_01.jpg", predicted.test / f"{ID}.jpg")
    config = (predicted.cars / "ensemble.toml").read_text()
    predicted.did("remove-model", "one")
    predicted.did("add-model", "bright-cut", "--name", "one", "--set", "cut=99")
    assert "was made with another member" in predicted.do(*WORDS).error
    assert open_store(predicted.store("one", "test")).missing() == []
    (predicted.cars / "ensemble.toml").write_text(config)
    assert "1 maps are made anew" in predicted.did(*WORDS).err


def test_stores_of_earlier_versions_are_believed_and_learn(predicted):
    store = predicted.store("one", "test")
    shutil.rmtree(store / "photos")
    shutil.copy(predicted.test / "c9d_01.jpg", predicted.test / f"{ID}.jpg")
    assert "changed" not in predicted.did(*WORDS).err
    assert "6 right, 0 missing, 0 damaged" in predicted.did("verify").out
    chunk = store / "prob" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    predicted.did("verify", "--repair")
    predicted.did(*WORDS)
    shutil.copy(predicted.test / "c9d_01.jpg", predicted.test / "b22_01.jpg")
    assert "('b22_01'): 1 maps are made anew" in predicted.did(*WORDS).err


def test_damaged_fingerprints_are_found_and_forgotten(predicted):
    chunk = predicted.store("one", "test") / "photos" / "c" / "0"
    octets = bytearray(chunk.read_bytes())
    octets[3] ^= 1
    chunk.write_bytes(octets)
    assert "array photos is damaged" in predicted.do(*WORDS).error
    done = predicted.do("verify")
    assert done.code == 1
    assert "6 right, 0 missing, 1 damaged" in done.out
    assert "mended 1 things beside the maps" in predicted.did("verify", "--repair").out
    assert "6 right, 0 missing, 0 damaged" in predicted.did("verify").out
    predicted.did(*WORDS)
    assert asked(predicted) == []


def test_a_photo_that_changes_while_its_map_is_made_is_of_no_fingerprint(predicted, tmp_path):
    prints = PhotoPrints(ImageFolder(predicted.test), tmp_path / "cache")
    prints.begin([ID, "b22_01"])
    shutil.copy(predicted.test / "c9d_01.jpg", predicted.test / f"{ID}.jpg")
    assert prints.of_map(ID) == CHANGING
    assert prints.of_map("b22_01") == prints("b22_01") >= LEAST > CHANGING
    assert prints(ID) == prints("c9d_01") != prints("b22_01")
    prints.keep()
    assert PhotoPrints(ImageFolder(predicted.test), tmp_path / "cache")(ID) == prints(ID)


def test_a_photo_of_the_group_that_changes_while_a_map_is_made_is_noticed(predicted, tmp_path):
    groups = {"b22_01": "b22", ID: "b22", "c9d_01": "c9d"}
    prints = PhotoPrints(ImageFolder(predicted.test), tmp_path / "cache", groups)
    prints.begin(["b22_01", "c9d_01"])
    before = prints("b22")
    shutil.copy(predicted.test / "c9d_01.jpg", predicted.test / f"{ID}.jpg")
    assert prints.of_map("b22_01") == CHANGING
    assert prints.of_map("c9d_01") == prints("c9d") >= LEAST
    assert prints("b22") != before
