"""carvana-ens lock, replay and diff on the command line."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def one(project, monkeypatch):
    """A project with an imported member, entered."""
    project.kept("locked", lambda: project.imported(("one", 2, 1, 4)))
    monkeypatch.chdir(project.cars)
    return project


def test_the_lock_is_where_the_user_is(one):
    done = one.run("lock")
    document = json.loads((one.cars / "ensemble.lock.json").read_text())
    sha = document["lock"]["submission_sha256"]
    assert done.out == f"ensemble.lock.json: 1 members, 6 images, text of sha256 {sha}\n"
    assert done.err == ""
    done = one.run("replay", "ensemble.lock.json", "-o", "again.csv.gz")
    assert done.out == "wrote again.csv.gz: 6 images, the same text as that of ensemble.lock.json\n"
    document = json.loads(one.run("replay", "ensemble.lock.json", "-o", "again.csv", "--json").out)
    assert document == {
        "path": "again.csv",
        "images": 6,
        "same": True,
        "differences": [],
        "refused": [],
        "predicted": [],
        "reasons": [],
    }
    done = one.run("diff", "again.csv", "again.csv.gz")
    assert (done.code, done.out) == (0, "the same masks of 6 images: every row has the same text\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["replay"], "LOCK"),
        (["replay", "x.json"], "--dry-run"),
        (["replay", "x.json", "-o", "x.csv", "--dry-run"], "--dry-run"),
        (["replay", "x.json", "-o", "x.txt"], "x.txt"),
        (["replay", "x.json", "-o", "x.csv", "--images", "ensemble.toml"], "ensemble.toml"),
        (["lock", "--submission", "x.zip"], "x.zip"),
        (["lock", "--threshold", "2"], "'2'"),
        (["diff", "x.csv"], "OTHER"),
        (["diff", "x.csv", "y.csv", "--size", "48"], "48"),
        (["diff", "x.csv", "y.csv", "--worst", "-1"], "--worst"),
        (["diff", "x.csv", "y.csv", "--dialect", "zigzag"], "'zigzag'"),
        (["diff", "x.csv", "y.json"], "one of each"),
    ],
)
def test_what_cannot_be_meant(one, words, told):
    done = one.run(*words)
    assert told in done.error
    assert done.code == 2
    assert not (one.cars / "ensemble.lock.json").exists()
    assert not (one.cars / "x.csv").exists()


@pytest.mark.parametrize(
    "words",
    [["replay", "x.json", "--dry-run"], ["diff", "x.json", "y.json"], ["diff", "x.csv", "y.csv"]],
)
def test_files_that_are_not_there(one, words):
    done = one.run(*words)
    assert words[1] in done.error
    assert done.code == 1


@pytest.mark.parametrize("damage", ["cut off", "changed", "no gzip"])
def test_a_submission_that_is_damaged(one, damage):
    one.run("blend", "-o", "a.csv.gz")
    whole = (one.cars / "a.csv.gz").read_bytes()
    half = len(whole) // 2
    bad = {"cut off": whole[:half], "changed": whole[:30] + b"\xff" * 40 + whole[70:], "no gzip": b"img,rle_mask\n"}
    (one.cars / "a.csv.gz").write_bytes(bad[damage])
    done = one.run("lock", "--submission", "a.csv.gz")
    assert "a.csv.gz cannot be read" in done.error
    assert not (one.cars / "ensemble.lock.json").exists()
