"""carvana-ens pack: the project's stores in place, and everything else that is done with them afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from carvana_ens import open_store
from carvana_ens.project import Project
from carvana_ens.verbs.pack import Packed, pack


@pytest.fixture
def pair(project):
    """A project with two imported members."""
    project.codes = project.kept("packable", lambda: project.imported(("one", 2, 1, 0), ("two", 1, -2, 3)))
    return project


SPLITS = [("one", "oof"), ("one", "test"), ("two", "oof"), ("two", "test")]


def is_packed(world, member, split):
    return open_store(world.store(member, split)).packed is not None


def files(world):
    """What the folder of stores holds, by name."""
    folder = world.cars / "stores"
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bytes_of(world, member, split, names):
    return sum(path.stat().st_size for path in world.store(member, split).glob(names) if path.is_file())


def test_every_store_is_packed_and_said_with_its_bytes(pair):
    plain = {which: open_store(pair.store(*which)).fingerprint() for which in SPLITS}
    before = {which: bytes_of(pair, *which, "prob/c/**/*") for which in SPLITS}
    lines = pair.did("pack").out.splitlines()
    for line, which in zip(lines, SPLITS, strict=True):
        now = bytes_of(pair, *which, "prob/c.*")
        maps = 8 if which[1] == "oof" else 6
        assert line == f"{pair.store(*which)}: {maps} maps packed, {before[which]:,} bytes before, {now:,} now"
        store = open_store(pair.store(*which))
        assert store.packed is not None
        assert store.fingerprint() == plain[which]
        for image_id in store.ids:
            assert np.array_equal(store.read(image_id), pair.codes[which[0]][image_id])
    packed = files(pair)
    lines = pair.did("pack").out.splitlines()
    for line, which in zip(lines, SPLITS, strict=True):
        now = bytes_of(pair, *which, "prob/c.*")
        maps = 8 if which[1] == "oof" else 6
        assert line == f"{pair.store(*which)}: {maps} maps packed already, {now:,} bytes"
    assert files(pair) == packed


def test_members_and_splits_may_be_chosen(pair):
    assert "two" not in pair.did("pack", "one", "--split", "test", "--threads", "1").out
    assert [is_packed(pair, *which) for which in SPLITS] == [False, True, False, False]
    pair.did("pack", "--split", "test", "--split", "oof", "--split", "test", "two")
    assert [is_packed(pair, *which) for which in SPLITS] == [False, True, True, True]


def test_dry_run_says_what_would_be_done_and_does_nothing(pair):
    pair.did("pack", "two", "--split", "oof")
    before = files(pair)
    lines = pair.did("pack", "--dry-run").out.splitlines()
    assert [("to pack" in line, "packed already" in line) for line in lines] == [
        (True, False),
        (True, False),
        (False, True),
        (True, False),
    ]
    assert (
        lines[1]
        == f"{pair.store('one', 'test')}: 6 maps to pack, {bytes_of(pair, 'one', 'test', 'prob/c/**/*'):,} bytes"
    )
    assert files(pair) == before


def test_what_cannot_be_packed_is_named_before_anything_is(pair):
    pair.did("add-model", "learned-cut")
    pair.did("train", "--fold", "0")
    pair.did("predict", "learned-cut", "--fold", "0")
    (pair.store("two", "test") / "zarr.json").write_text("{")
    before = files(pair)
    told = pair.do("pack").error
    assert f"{pair.store('learned-cut', 'oof')} lacks 4 of 8 maps" in told
    assert f"{pair.store('two', 'test')}/zarr.json cannot be read" in told
    assert files(pair) == before
    assert "learned-cut" in pair.do("pack", "--dry-run").error
    pair.did("pack", "one")
    assert "test.zarr is no probability store" in pair.do("pack", "learned-cut", "--split", "test").error
    assert "did you mean 'one'" in pair.do("pack", "ome").error


def test_nothing_to_pack(project):
    assert "has no members" in project.do("pack").error
    project.did("add-model", "bright-cut")
    assert "there are no stores to pack: run predict or import first" in project.do("pack").error


def test_a_damaged_map_is_named_and_the_store_stays_as_it_was(pair):
    path = pair.store("two", "oof") / "prob" / "c" / "3" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    told = pair.do("pack").error
    assert str(pair.store("two", "oof")) in told
    assert "0a1_04" in told
    assert [is_packed(pair, *which) for which in SPLITS] == [True, True, False, False]
    assert ": 7 right, 0 missing, 1 damaged" in pair.do("verify", "two").out


def test_predict_has_nothing_to_do_on_packed_stores(project):
    project.did("add-model", "bright-cut")
    project.did("predict")
    project.did("pack")
    project.calls()
    done = project.did("predict")
    assert "oof.zarr: 0 maps predicted, 8 in all" in done.out
    assert "test.zarr: 0 maps predicted, 6 in all" in done.out
    assert project.calls("predict") == []
    assert is_packed(project, "bright-cut", "oof")
    before = open_store(project.store("bright-cut", "test")).fingerprint()
    project.did("predict", "--split", "test", "--fresh")
    assert not is_packed(project, "bright-cut", "test")
    assert open_store(project.store("bright-cut", "test")).fingerprint() == before
    project.did("pack")
    assert is_packed(project, "bright-cut", "test")


def test_an_import_has_nothing_to_do_on_packed_stores(project):
    project.imported(("one", 2, 1, 0))
    project.did("pack")
    words = ("import", "one", "--from", project.root / "one_test", "--split", "test")
    assert "0 maps imported, 6 in all" in project.did(*words).out
    assert is_packed(project, "one", "test")


def test_tuning_stays_fresh_and_blends_stay_the_same(pair):
    pair.did("tune")
    settings = {
        "tuned": ("--weights", "tuned"),
        "equal": (),
        "odd": ("--weights", "one=2,two=1", "--threshold", "0.37"),
        "beside": ("--threshold", "0.99"),
    }

    def texts(folder):
        for name, words in settings.items():
            pair.did("blend", *words, "-o", pair.root / folder / f"{name}.csv")
        return {name: (pair.root / folder / f"{name}.csv").read_bytes() for name in settings}

    plain = texts("plain")
    pair.did("pack", "one")
    assert texts("mixed") == plain
    pair.did("pack")
    assert texts("packed") == plain
    assert pair.did("status").out.endswith("tuning: fresh\n")
    first = (pair.cars / "tuning.json").read_bytes()
    pair.did("tune")
    assert (pair.cars / "tuning.json").read_bytes() == first
    assert pair.did("verify").out.count("0 missing, 0 damaged") == 4


def test_verify_and_blend_name_a_damaged_packed_map(pair):
    pair.did("pack")
    path = pair.store("one", "test") / "prob" / "c.0.0.0"
    good, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    pair.did("blend", "-o", pair.root / "right.csv")
    for at in rng.integers(0, len(good), 12):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.integers(8)]) + good[at + 1 :])
        done = pair.do("verify", "one", "--json")
        assert done.code == 1
        (lines,) = (result["damage"] for result in json.loads(done.out) if result["damage"])
        blended = pair.do("blend", "-o", pair.root / "x.csv")
        if blended.code:
            refused += 1
            assert f"{pair.store('one', 'test')}: the chunk of " in blended.error
            assert any(blended.error == line for line in lines)
            assert not (pair.root / "x.csv").exists()
        else:
            assert (pair.root / "x.csv").read_bytes() == (pair.root / "right.csv").read_bytes()
            (pair.root / "x.csv").unlink()
    assert refused > 0


def test_the_run_is_recorded(pair):
    pair.did("pack", "one", "--split", "oof")
    (path,) = (pair.cars / "runs").glob("*-pack.json")
    record = json.loads(path.read_text())
    assert (record["member"], record["split"], record["images"]) == ("one", "oof", 8)


def test_progress_counts_images(pair):
    seen = []

    def track(items, total, what):
        for item in items:
            seen.append((what, total))
            yield item

    results = pack(Project(pair.cars), ["two"], ["test"], threads=3, track=track)
    assert seen == [("two test", 6)] * 6
    before, now = results[0].before, bytes_of(pair, "two", "test", "prob/c.*")
    assert results == [Packed(pair.store("two", "test"), 6, False, before, now)]
