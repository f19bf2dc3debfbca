"""lock and replay: the same text from the lock alone, and what differs is named."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil

import pytest

MEMBERS = (("b_net", 1.5, -3, 60), ("a_net", 2.5, 4, 90))


@pytest.fixture
def day(project):
    """A project with a trained member, one that needs no training and two imported ones, tuned."""

    def make():
        project.did("add-model", "learned-cut", "--set", "epochs=2")
        project.did("add-model", "bright-cut", "--tta", "hflip")
        project.imported(*MEMBERS)
        project.did("train")
        project.did("predict")
        project.did("tune")

    project.kept("replay day", make)
    project.lock = project.root / "ensemble.lock.json"
    return project


@pytest.fixture
def locked(day):
    """The day with a submission of predicted members, blended with tuned steps left out, and its lock."""
    words = ["--weights", "learned-cut=2,bright-cut=3", "--threshold", "0.41", "--postprocess", "largest"]
    day.did("blend", *words, "-o", day.root / "first.csv.gz")
    day.did("lock", *words, "-o", day.lock, "--submission", day.root / "first.csv.gz")
    return day


def text(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def content(path):
    return json.loads(path.read_text())["lock"]


def again(world, *words):
    return world.do("replay", world.lock, "-o", world.root / "again.csv", *words)


def remade(path, change):
    """A lock with its content changed and its sha256 made to fit, as another machine would have written it."""
    document = json.loads(path.read_text())
    change(document["lock"])
    plain = json.dumps(document["lock"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    document["sha256"] = hashlib.sha256(plain.encode()).hexdigest()
    path.write_text(json.dumps(document))


def test_wiped_stores_give_the_same_text(locked):
    first = text(locked.root / "first.csv.gz")
    assert content(locked.lock)["submission_sha256"] == hashlib.sha256(first).hexdigest()
    shutil.rmtree(locked.cars / "stores")
    (locked.cars / "tuning.json").unlink()
    locked.calls()
    done = again(locked)
    assert done.code == 0
    assert done.err == ""
    assert "the same text" in done.out
    assert text(locked.root / "again.csv") == first
    assert {call[1] for call in locked.calls("predict")} == {"learned-cut", "bright-cut"}
    assert again(locked).code == 0
    assert locked.calls("predict") == []  # nothing is missing any more


@pytest.mark.parametrize(("space", "cut"), [("rank", "threshold"), ("temperature", "expected-dice")])
def test_tuned_values_are_the_locks_and_not_those_of_tuning_json(day, space, cut):
    day.did("tune", "--no-honest", "--spaces", space, "--cut", cut)
    day.did("blend", "--weights", "tuned", "-o", day.root / "first.csv")
    day.did("lock", "--weights", "tuned", "-o", day.lock)
    tuning = json.loads((day.cars / "tuning.json").read_text())
    found = content(day.lock)
    assert (found["space"]["kind"], found["cut"]) == (space, cut)
    assert found["weights"] == {name: weight for name, weight in tuning["weights"].items() if weight}
    assert found["space"]["members"].keys() == found["weights"].keys()
    day.did("tune", "--no-honest", "--from", "0.02", "--to", "0.02")
    day.did("blend", "--weights", "tuned", "-o", day.root / "other.csv")
    assert text(day.root / "other.csv") != text(day.root / "first.csv")
    assert again(day).code == 0
    assert text(day.root / "again.csv") == text(day.root / "first.csv")


def test_another_machine_with_the_same_photos_and_checkpoints(locked):
    first = text(locked.root / "first.csv.gz")
    there = locked.root / "there" / "cars"
    shutil.copytree(locked.cars, there, ignore=shutil.ignore_patterns("stores", "tuning.json", "runs", "folds"))
    for folder in (locked.images, locked.masks, locked.test):
        folder.rename(locked.root / "there" / folder.name)
    shutil.rmtree(locked.cars)
    done = locked.run("--project", there, "replay", locked.lock, "-o", locked.root / "again.csv.gz")
    assert (done.code, done.err) == (0, "")
    assert text(locked.root / "again.csv.gz") == first
    assert json.loads((there / "folds" / "default.json").read_text()) == content(locked.lock)["fold_tables"]["default"]


def test_a_changed_checkpoint_is_named_and_refused(locked):
    shutil.rmtree(locked.cars / "stores")
    folder = locked.cars / "checkpoints" / "learned-cut" / "fold1"
    old = hashlib.sha256((folder / "cut.json").read_bytes()).hexdigest()
    (folder / "cut.json").write_text(json.dumps({"cut": 91.0}))
    new = hashlib.sha256((folder / "cut.json").read_bytes()).hexdigest()
    done = again(locked)
    line = f"member learned-cut, checkpoint of fold 1: sha256 {old[:12]}... in the lock, sha256 {new[:12]}... here"
    assert done.err.splitlines()[0] == line
    assert line in done.error
    assert done.code == 1
    assert not (locked.root / "again.csv").exists()
    assert not (locked.cars / "stores").exists()

    record = json.loads((folder / "done.json").read_text())
    (folder / "done.json").write_text(json.dumps(record | {"sha256": new}))
    done = again(locked, "--anyway")
    assert done.code == 1
    assert "NOT the text" in done.out
    assert "the maps of learned-cut differ" in done.out
    assert "the maps of bright-cut" not in done.out
    assert (locked.root / "again.csv").is_file()


def test_a_checkpoint_that_is_gone_is_named(locked):
    shutil.rmtree(locked.cars / "stores" / "learned-cut")
    shutil.rmtree(locked.cars / "checkpoints" / "learned-cut" / "fold0")
    done = again(locked)
    assert "learned-cut, checkpoint of fold 0: sha256" in done.error
    assert "none here" in done.error


def test_a_changed_plugin_version_is_named(locked):
    def older(lock):
        for name in ("learned-cut", "bright-cut"):
            lock["members"][name]["provenance"]["plugin"]["version"] = "0.9"

    remade(locked.lock, older)
    done = again(locked)  # the maps are those of the lock: nothing is to be made with it
    assert (done.code, "the same text" in done.out) == (0, True)
    assert "member bright-cut, plugin: numpy-models 0.9 in the lock, numpy-models 1.0 here" in done.err.splitlines()
    shutil.rmtree(locked.store("bright-cut", "test"))
    done = again(locked)
    assert "bright-cut, plugin: numpy-models 0.9 in the lock" in done.error
    assert not locked.store("bright-cut", "test").exists()
    assert again(locked, "--anyway").code == 0  # the version alone made no other maps


def test_changed_options_size_and_members_are_named(locked):
    shutil.rmtree(locked.cars / "stores")
    file = locked.cars / "ensemble.toml"
    before = file.read_text()
    file.write_text(before.replace('model = "bright-cut"', 'model = "bright-cut"\nsize = "24x36"'))
    assert "member bright-cut, size: none in the lock, 24x36 here" in again(locked).error
    file.write_text(before.replace("epochs = 2", "epochs = 1"))
    assert 'member learned-cut, options: {"epochs": 2} in the lock, {"epochs": 1} here' in again(locked).error
    file.write_text(before)
    locked.did("remove-model", "bright-cut")
    assert "member bright-cut: in the lock, not in ensemble.toml here" in again(locked).error


def test_other_photos_and_another_version_are_named(locked, oracle):
    remade(locked.lock, lambda lock: lock.update(carvana_ens="0.0.1"))
    done = again(locked)
    assert done.code == 0
    assert "carvana-ens: 0.0.1 in the lock" in done.err
    oracle.save_photo(locked.test, "d77_01")
    done = again(locked)
    assert done.code == 0  # maps are there: the photos are not looked at
    assert "ids of the test photos" in done.err
    shutil.rmtree(locked.cars / "stores")
    assert "ids of the test photos" in again(locked).error
    done = again(locked, "--anyway")
    assert done.code == 1
    assert "6 in the lock, 7 here" in done.out


def test_photos_changed_under_their_names_are_found_by_their_maps(locked, oracle):
    shutil.rmtree(locked.cars / "stores")
    (locked.test / "b22_01.jpg").write_bytes((locked.test / "b22_02.jpg").read_bytes())
    done = again(locked)
    assert done.code == 1
    assert "the maps of bright-cut differ from the lock's, though nothing else of it does: other photos" in done.out


def test_another_fold_table_is_named(locked):
    shutil.rmtree(locked.cars / "stores")
    path = locked.cars / "folds" / "default.json"
    old = json.loads(path.read_text())["digest"]
    assert content(locked.lock)["fold_tables"]["default"]["digest"] == old
    path.unlink()
    file = locked.cars / "ensemble.toml"
    file.write_text(file.read_text().replace("[folds.default]", "[folds.default]\nseed = 5"))
    locked.did("train", "--fresh")
    new = json.loads(path.read_text())["digest"]
    done = again(locked)
    told = f"member learned-cut, fold table: sha256 {old[:12]}... in the lock, sha256 {new[:12]}... here"
    assert told in done.err.splitlines()
    assert done.code == 1


def test_maps_that_are_others_are_not_wiped(locked):
    file = locked.cars / "ensemble.toml"
    before = file.read_text()
    file.write_text(before.replace('model = "bright-cut"', 'model = "bright-cut"\nsize = "24x36"'))
    locked.did("predict", "bright-cut", "--split", "test", "--fresh")
    file.write_text(before)
    done = again(locked)
    assert "member bright-cut, size: none in the lock, 24x36 in the maps here" in done.error
    assert "predict bright-cut --fresh" in done.err
    locked.did("predict", "bright-cut", "--split", "test", "--fresh")
    assert again(locked).code == 0


def test_members_that_only_a_step_reads_are_predicted_too(day):
    words = ["--weights", "learned-cut=1", "--postprocess", "roof-repair:member=bright-cut"]
    day.did("blend", *words, "-o", day.root / "first.csv")
    day.did("lock", *words, "-o", day.lock)
    assert set(content(day.lock)["members"]) == {"learned-cut", "bright-cut"}
    shutil.rmtree(day.cars / "stores")
    assert again(day).code == 0
    assert text(day.root / "again.csv") == text(day.root / "first.csv")


def test_a_step_that_is_not_installed_is_named(locked):
    def other(lock):
        lock["steps"] = lock["steps"].replace("largest", "smallest")
        lock["step_packages"] = ["some-steps 3.1"]

    remade(locked.lock, other)
    done = again(locked)
    assert "packages of post-processing steps: some-steps 3.1 in the lock, none here" in done.err.splitlines()
    assert "'smallest'" in done.error


def test_a_member_of_a_checkpoint_from_elsewhere(day):
    file = day.cars / "mine.json"
    file.write_text(json.dumps({"cut": 117.0}))
    day.did("add-model", "learned-cut", "--name", "mine", "--checkpoint", file)
    day.did("predict", "mine", "--split", "test")
    day.did("lock", "--weights", "mine=1", "-o", day.lock)
    day.did("add-model", "learned-cut", "--name", "later")  # not in the lock, and not trained
    shutil.rmtree(day.store("mine", "test"))
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    good = file.read_bytes()
    file.write_text(json.dumps({"cut": 118.0}))
    assert f"member mine, checkpoint: sha256 {old[:12]}... in the lock, sha256" in again(day).error
    file.unlink()
    assert f"member mine, checkpoint: sha256 {old[:12]}... in the lock, none here" in again(day).error
    (day.cars / "moved.json").write_bytes(good)
    toml = day.cars / "ensemble.toml"
    toml.write_text(toml.read_text().replace("mine.json", "moved.json"))
    done = again(day)
    assert (done.code, "the same text" in done.out) == (0, True)
    assert "member mine, checkpoint: mine.json in the lock, moved.json here" in done.err.splitlines()


def test_missing_maps_without_predicting(locked):
    shutil.rmtree(locked.store("bright-cut", "test"))
    done = again(locked, "--no-predict")
    assert str(locked.store("bright-cut", "test")) in done.error
    assert not locked.store("bright-cut", "test").exists()


def test_imported_maps_must_be_there(day):
    day.did("lock", "--weights", "a_net=1", "-o", day.lock)
    assert again(day).code == 0
    shutil.rmtree(day.store("a_net", "test"))
    done = again(day)
    assert str(day.store("a_net", "test")) in done.error
    day.maps("a_net_test", ["b22_01"], 1, 1)
    day.did("import", "a_net", "--from", day.root / "a_net_test", "--split", "test")
    done = again(day)
    assert "member a_net: its test maps here are others" in done.error


@pytest.mark.parametrize("words", [[], ["--images", "train_hq"]])
def test_maps_made_elsewhere_need_no_photos_and_no_masks(world, words):
    world.run("init", world.cars, *(world.root / word if word == "train_hq" else word for word in words))
    world.imported(*MEMBERS)
    world.lock = world.root / "a.json"
    for split in ("oof", "test"):
        world.did("lock", "--split", split, "-o", world.lock)
        assert content(world.lock)["photos_sha256"] is None
        assert again(world).code == 0


def test_a_dry_run_says_and_does_nothing(locked):
    shutil.rmtree(locked.cars / "stores")
    done = locked.did("replay", locked.lock, "--dry-run")
    assert "0 differences" in done.out
    assert "maps to predict: bright-cut, learned-cut" in done.out
    document = json.loads(locked.did("replay", locked.lock, "--dry-run", "--json").out)
    assert (document["predicted"], document["same"], document["path"]) == (["bright-cut", "learned-cut"], None, None)
    locked.did("remove-model", "bright-cut")
    done = locked.do("replay", locked.lock, "--dry-run")
    assert done.code == 1
    assert "bright-cut: in the lock, not in" in done.err
    assert not (locked.cars / "stores").exists()


def test_out_of_fold_submissions_are_locked_too(day):
    day.did("blend", "--weights", "learned-cut=1", "--split", "oof", "-o", day.root / "first.csv")
    day.did("lock", "--weights", "learned-cut=1", "--split", "oof", "-o", day.lock)
    shutil.rmtree(day.store("learned-cut", "oof"))
    assert again(day).code == 0
    assert text(day.root / "again.csv") == text(day.root / "first.csv")


def test_photos_of_another_split_are_named_by_the_user(day):
    words = ["--split", "more", "--images", day.images]
    day.did("predict", "bright-cut", *words, "--dtype", "uint16")
    day.did("lock", "--weights", "bright-cut=1", "--split", "more", "-o", day.lock)
    shutil.rmtree(day.store("bright-cut", "more"))
    assert "--images" in again(day).error
    assert again(day, "--images", day.images).code == 0  # in uint16 again


def test_the_same_on_every_machine(locked):
    """What is compared has neither time nor path; only the part that nobody compares does."""
    before = locked.lock.read_text()
    document = json.loads(before)
    assert set(document) == {"schema", "lock", "sha256", "made"}
    assert str(locked.root) not in json.dumps(document["lock"])
    assert document["made"]["host"] not in json.dumps(document["lock"])
    assert before == json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_lock_refuses_what_blend_refuses_and_another_submission(day, oracle):
    day.did("blend", "-o", day.root / "equal.csv")
    done = day.do("lock", "--weights", "tuned", "-o", day.lock, "--submission", day.root / "equal.csv")
    assert str(day.root / "equal.csv") in done.error
    assert not day.lock.exists()
    day.maps("fresh", oracle.TRAIN, 2, 0)
    day.did("import", "b_net", "--from", day.root / "fresh", "--split", "oof", "--out-of-fold", "--fresh")
    assert "stale" in day.do("lock", "--weights", "tuned", "-o", day.lock).error
    assert "did you mean 'a_net'" in day.do("lock", "--weights", "a_nett=1", "-o", day.lock).error
    shutil.rmtree(day.store("a_net", "test"))
    assert "a_net has no test maps" in day.do("lock", "-o", day.lock).error
    assert not day.lock.exists()


def test_lock_warns_of_what_it_could_not_make_again(day):
    file = day.cars / "ensemble.toml"
    file.write_text(file.read_text().replace('model = "bright-cut"', 'model = "bright-cut"\nsize = "24x36"'))
    done = day.did("lock", "--weights", "bright-cut=1", "-o", day.lock)
    assert done.err == (
        "warning: replay could not make these maps again here: member bright-cut, size: none in the lock, 24x36 here\n"
    )
    document = json.loads(day.did("lock", "--weights", "bright-cut=1", "-o", day.lock, "--json").out)
    assert document["unlike"] == ["member bright-cut, size: none in the lock, 24x36 here"]
    assert document["sha256"] == content(day.lock)["submission_sha256"]


LOOKER = """
import numpy as np
from carvana_ens import Model
from carvana_ens.learn.recipe import InputOptions


class Looker(Model):
    Options = type("LookerOptions", (InputOptions,), {})

    def predict(self, batch):
        return batch.images.mean(axis=-1, dtype=np.float32) / 255
"""


def test_a_member_whose_maps_another_looks_at_is_locked_and_predicted_first(project, oracle, monkeypatch):
    site = project.root / "looking"
    oracle.package(site, "looking", "[carvana_ens.models]\nlooker = replay_looker:Looker\n")
    (site / "replay_looker.py").write_text(LOOKER)
    monkeypatch.syspath_prepend(site)
    project.did("add-model", "bright-cut", "--name", "z_first", "--set", "cut=150", "--set", "soft=5")
    project.did("add-model", "looker", "--set", "roi=z_first", "--set", "roi_margin=3")
    project.did("predict")
    project.lock = project.root / "a.json"
    words = ["--weights", "looker=1", "--threshold", "0.4"]
    project.did("blend", *words, "-o", project.root / "first.csv")
    project.did("lock", *words, "-o", project.lock)
    assert list(content(project.lock)["members"]) == ["looker", "z_first"]  # not the order that they are predicted in
    shutil.rmtree(project.cars / "stores")
    assert again(project).code == 0
    assert text(project.root / "again.csv") == text(project.root / "first.csv")
