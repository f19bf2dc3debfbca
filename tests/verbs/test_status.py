"""carvana-ens status and verify."""

from __future__ import annotations

import json

import numpy as np
import pytest

from carvana_ens import StoreWriter, open_store


@pytest.fixture
def pair(project):
    """A project with two imported members."""
    project.kept("status", lambda: project.imported(("one", 2, 1, 0), ("two", 1, -2, 0)))
    return project


def chunk(world, member, split, number):
    return world.store(member, split) / "prob" / "c" / str(number) / "0" / "0"


def test_status_of_an_empty_project(project):
    assert "has no members yet" in project.did("status").out
    assert json.loads(project.did("status", "--json").out)["members"] == []


def test_status_through_a_days_work(project):
    project.did("add-model", "learned-cut", "--size", "24x36")
    project.did("add-model", "bright-cut")
    assert "none" in project.did("status").out
    project.did("train", "--fold", "1")
    project.did("predict", "learned-cut", "--fold", "1")
    document = json.loads(project.did("status", "--json").out)
    learned, bright = document["members"]
    assert (learned["name"], learned["model"], learned["size"]) == ("learned-cut", "learned-cut", "24x36")
    assert list(learned["training"]) == ["1"]
    assert (learned["stores"][0]["split"], learned["stores"][0]["done"], learned["stores"][0]["images"]) == (
        "oof",
        4,
        8,
    )
    assert bright["untrained"] == "model bright-cut needs no training"
    assert document["tuning"] == "none"
    project.did("train")
    project.did("predict")
    project.did("tune")
    text = project.did("status").out
    assert "oof 8/8, test 6/6" in text
    assert text.endswith("tuning: fresh\n")


def test_status_shows_what_is_broken_and_goes_on(pair):
    pair.did("add-model", "bright-cut")
    (pair.store("one", "oof") / "zarr.json").write_text("{")
    (pair.cars / "checkpoints" / "bright-cut" / "fold_old").mkdir(parents=True)
    (pair.cars / "checkpoints" / "bright-cut" / "fold_old" / "done.json").write_text("{}")
    done = pair.did("status")
    assert f"{pair.store('one', 'oof')}/zarr.json cannot be read" in done.out
    assert "oof 8/8, test 6/6" in done.out


def test_verify_counts_what_is_right(pair):
    done = pair.did("verify")
    assert done.out.count("0 missing, 0 damaged") == 4
    assert f"{pair.store('two', 'test')}: 6 right" in done.out
    assert pair.did("verify", "two").out.count("right") == 2


def test_verify_and_blend_name_a_damaged_map(pair):
    path = chunk(pair, "one", "test", 2)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    done = pair.do("verify")
    assert done.code == 1
    assert "b22_03" in done.out
    assert f"{pair.store('one', 'test')}: 5 right, 0 missing, 1 damaged" in done.out
    told = pair.do("blend", "-o", pair.root / "x.csv").error
    assert "b22_03" in told
    assert str(pair.store("one", "test")) in told
    assert not (pair.root / "x.csv").exists()
    assert pair.did("verify", "two").code == 0


def test_verify_names_a_chunk_that_is_gone(pair):
    chunk(pair, "two", "oof", 7).unlink()
    done = pair.do("verify", "--json")
    assert done.code == 1
    damage = {r["path"]: r["damage"] for r in json.loads(done.out) if r["damage"]}
    (lines,) = damage.values()
    assert list(damage) == [str(pair.store("two", "oof"))]
    assert "7f3_04" in lines[0]
    assert "7f3_04" in pair.do("tune").error


def test_verify_names_a_map_that_is_another_image_s(pair):
    """Both chunks are whole, so that only the done record can tell."""
    first, second = chunk(pair, "one", "oof", 0), chunk(pair, "one", "oof", 1)
    first.write_bytes(second.read_bytes())
    done = pair.do("verify")
    assert done.code == 1
    assert "0a1_01" in done.out
    assert "0a1_02" not in done.out


def test_verify_counts_what_is_missing_without_failing(project):
    project.did("add-model", "learned-cut")
    project.did("train", "--fold", "0")
    project.did("predict", "--fold", "0")
    assert ": 4 right, 4 missing, 0 damaged" in project.did("verify").out


def test_verify_shows_a_store_that_does_not_open(pair):
    (pair.store("one", "oof") / "zarr.json").write_text("{")
    done = pair.do("verify")
    assert done.code == 1
    assert "zarr.json cannot be read" in done.out


def test_nothing_to_verify(project):
    project.did("add-model", "bright-cut")
    assert "run predict or import first" in project.do("verify").error
    assert "did you mean 'bright-cut'?" in project.do("verify", "bright-cat").error


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_store_of_another_schema_is_refused(pair):
    edit(pair.store("one", "test") / "zarr.json", lambda d: d["attributes"]["carvana_ens"].update(schema=9))
    told = pair.do("blend", "-o", pair.root / "x.csv").error
    assert str(pair.store("one", "test")) in told
    assert "schema 9" in told
    assert "schema 9" in pair.did("status").out


def test_a_zarr_group_of_somebody_else_is_refused(pair):
    edit(pair.store("one", "test") / "zarr.json", lambda d: d["attributes"].clear())
    assert str(pair.store("one", "test")) in pair.do("blend", "-o", pair.root / "x.csv").error


def test_stores_of_other_images_are_refused(world, oracle):
    world.run("init", world.cars)
    for name, ids in (("one", ["a", "b"]), ("two", ["a", "c"]), ("three", ["a", "b"])):
        for image_id in ids:
            shape = (5, 8) if name == "three" else (5, 7)
            oracle.save_grey(world.root / name / f"{image_id}.png", np.full(shape, 200, np.uint8))
        world.did("import", name, "--from", world.root / name, "--split", "test")
    told = world.do("blend", "--weights", "one=1,two=1", "-o", world.root / "x.csv").error
    assert "first b" in told
    assert str(world.store("two", "test")) in told
    told = world.do("blend", "--weights", "one=1,three=1", "-o", world.root / "x.csv").error
    assert "5x8" in told
    assert "image a" in told
    world.did("blend", "--weights", "two=1", "-o", world.root / "x.csv")


def test_damaged_maps_are_marked_and_made_again(project):
    for name in ("one", "two"):
        project.did("add-model", "bright-cut", "--name", name)
    project.did("predict")
    first = project.did("blend", "-o", project.root / "a.csv") and (project.root / "a.csv").read_bytes()
    project.did("pack", "two")
    for path in (chunk(project, "one", "test", 2), next((project.store("two", "oof") / "prob").glob("c.*"))):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    (project.store("one", "oof") / "prob" / "c" / "0.77.partial").write_bytes(b"12")
    done = project.did("verify", "--repair", "--gc")
    assert "marked 1 as missing: predict (or import) makes them again" in done.out
    assert "removed what stops had left: 1 things" in done.out
    told = project.did("verify").out
    assert f"{project.store('one', 'test')}: 5 right, 1 missing, 0 damaged" in told
    project.did("predict")
    assert project.did("verify").out.count("0 missing, 0 damaged") == 4
    project.did("blend", "-o", project.root / "b.csv")
    assert (project.root / "b.csv").read_bytes() == first


def test_a_repair_that_was_stopped_goes_on(project):
    """Maps of a packed store are marked, but it is not plain yet: predict could not write them."""
    project.did("add-model", "bright-cut", "--name", "one")
    project.did("predict", "--split", "test")
    project.did("pack", "one")
    store = open_store(project.store("one", "test"))
    with StoreWriter(store.path, store.ids, store.sizes, store.provenance, store.dtype) as writer:
        writer.forget([store.ids[1]])
    assert "is packed" in project.do("predict", "--split", "test").error
    project.did("verify", "--repair")
    project.did("predict", "--split", "test")
    assert open_store(store.path).fingerprint() == store.fingerprint()
