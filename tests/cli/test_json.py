"""What verbs tell programs: --json, and --dry-run before much is written."""

from __future__ import annotations

import json

import numpy as np


def told(done):
    return json.loads(done.out)


def test_import_can_be_tried_first(project, oracle):
    codes = project.maps("maps", oracle.TEST, 2, 1)
    words = ("import", "png", "--from", project.root / "maps", "--split", "test")
    before = project.cars.joinpath("ensemble.toml").read_bytes()
    tried = project.did(*words, "--dry-run")
    store = project.store("png", "test")
    assert tried.out == f"{store}: 6 maps to import, 6 in all\n"
    assert not store.exists()
    assert project.cars.joinpath("ensemble.toml").read_bytes() == before
    expected = {"member": "png", "split": "test", "path": str(store), "images": 6}
    assert told(project.did(*words, "--dry-run", "--json")) == {**expected, "new": 6}
    assert told(project.did(*words, "--json")) == {**expected, "new": 6}
    assert told(project.did(*words, "--dry-run", "--json")) == {**expected, "new": 0}
    assert told(project.did(*words, "--dry-run", "--fresh", "--json")) == {**expected, "new": 6}
    assert len(codes) == 6


def test_import_tried_first_refuses_what_import_refuses(project, oracle):
    project.maps("maps", oracle.TEST, 2, 1)
    (project.root / "maps" / f"{oracle.TEST[0]}.png").rename(project.root / "maps" / f"{oracle.TEST[0]}_mask.png")
    words = ("import", "png", "--from", project.root / "maps", "--split", "test", "--dry-run")
    assert f": {oracle.TEST[0]}_mask is on the other side, and ids must be equal" in project.do(*words).error
    oracle.save_grey(project.root / "maps" / f"{oracle.TEST[0]}.png", np.zeros((3, 4), np.uint8))
    (project.root / "maps" / f"{oracle.TEST[0]}_mask.png").unlink()
    assert "its photo is" in project.do(*words).error


def test_predict_pack_and_export_tell_programs(project):
    project.did("add-model", "bright-cut")
    found = told(project.did("predict", "--split", "test", "--json"))
    assert [(one["member"], one["images"], one["new"], one["missing"], one["failed"]) for one in found] == [
        ("bright-cut", 6, 6, 0, {})
    ]
    store = str(project.store("bright-cut", "test"))
    assert found[0]["path"] == store
    assert found[0]["meter"]["photos"] == 6
    for words, ready in ((("--dry-run",), False), ((), False), ((), True)):
        packed = told(project.did("pack", *words, "--json"))
        assert [(one["path"], one["maps"], one["ready"]) for one in packed] == [(store, 6, ready)]
    out = project.root / "maps"
    written = told(project.did("export", "bright-cut", "--to", "png", "-o", out, "--json"))
    assert written == {"path": str(out), "images": 6, "new": 6}
