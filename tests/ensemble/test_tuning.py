"""tuning.json: written, read strictly, refused when it is stale."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from carvana_ens.ensemble.bootstrap import Interval
from carvana_ens.ensemble.tuner import Tried
from carvana_ens.ensemble.tuning import (
    FoldChoice,
    HonestScores,
    Subset,
    Tuning,
    check_fresh,
    check_members,
    read_tuning,
)
from carvana_ens.errors import ProjectError, StaleError

GAIN = Interval(0.01, -0.02, 0.04, 0.95, 8, 5)
HONEST = HonestScores(
    score=Interval(0.85, None, None, 0.95, 8, 2),
    optimism=0.05,
    over_equal=GAIN,
    over_single=GAIN,
    folds={"0": FoldChoice(["x"], {"a": 1, "b": 1}, "0.5"), "1": FoldChoice(["y", "z"], {"a": 1, "b": 0}, "128/255")},
    buys={"a": GAIN, "b": GAIN},
    could_go={"b": GAIN},
    subsets=[Subset(["a"], 0.8), Subset(["a", "b"], 0.85)],
)
GOOD = Tuning(
    weights={"a": 2, "b": 0},
    threshold="128/255",
    images=8,
    scores={"tuned": 0.9},
    singles={"a": 0.8, "b": 0.7},
    single_thresholds={"a": "0.5", "b": "101/255"},
    fingerprints={"a": "f", "b": "g"},
    groups=2,
    masks="m",
    honest=HONEST,
    cut="expected-dice",
    steps="largest",
    final=0.91,
    tried=[Tried("space logit", GAIN, "its interval does not lie above 0")],
)


@pytest.fixture
def file(tmp_path):
    GOOD.write(tmp_path / "tuning.json")
    return tmp_path / "tuning.json"


def test_what_is_written_is_read(file):
    assert read_tuning(file) == GOOD
    unjudged = dataclasses.replace(GOOD, honest=None, reason="there is one group only")
    unjudged.write(file)
    assert read_tuning(file) == unjudged


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 1),
        ("honest", {}),
        ("cut", "knife"),
        ("space", {"kind": "logit"}),
        ("tried", [{}]),
        ("honest", "high"),
        ("schema", None),
        ("weights", {"a": -1, "b": 2}),
        ("weights", {"a": 0, "b": 0}),
        ("weights", {"a": 1.5, "b": 2}),
        ("weights", {"a": True, "b": 2}),
        ("weights", {}),
        ("weights", [1, 2]),
        ("threshold", 0.5),
        ("fingerprints", {"a": "f"}),
        ("colour", "red"),
    ],
)
def test_a_changed_file_is_refused_by_name(file, key, value):
    document = json.loads(file.read_text())
    document[key] = value
    file.write_text(json.dumps(document))
    with pytest.raises(ProjectError, match=rf"{file.name} .*run carvana-ens tune again"):
        read_tuning(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema": 2}', "\udcff"])
def test_a_damaged_file_is_refused_by_name(file, text):
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ProjectError, match=file.name):
        read_tuning(file)


def test_no_file_says_what_to_do(tmp_path):
    with pytest.raises(ProjectError, match="run carvana-ens tune first"):
        read_tuning(tmp_path / "tuning.json")


def test_stale_sources_are_named(file, store):
    maps = {"i": np.full((2, 3), 7, np.uint8)}
    a = store("a", maps)
    tuning = Tuning({"a": 1}, "0.5", 1, {}, {}, {}, {"a": a.fingerprint()}, 1, "m")
    check_fresh(file, tuning, {"a": a}, {"a": a})
    check_members(file, tuning, ["a", "z"])
    with pytest.raises(StaleError, match="member a, which is gone"):
        check_members(file, tuning, ["z"])
    other = store("other", {"i": np.full((2, 3), 8, np.uint8)}, member={"name": "a"})
    assert other.provenance == a.provenance
    with pytest.raises(StaleError, match="out-of-fold maps of a changed"):
        check_fresh(file, tuning, {"a": other}, {})
    changes = [{"member": {"name": "a", "seed": 3}}, {"checkpoints": {"0": "x"}}, {"plugin": {"version": "2"}}]
    for number, change in enumerate(changes):
        test = store(f"test{number}", maps, **{"member": {"name": "a"}, **change})
        with pytest.raises(StaleError, match=rf"test{number}\.zarr"):
            check_fresh(file, tuning, {"a": a}, {"a": test})
