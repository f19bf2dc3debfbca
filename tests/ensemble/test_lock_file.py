"""The lock as a file, and differences in words."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import pytest

from carvana_ens.core.space_tables import logit_table
from carvana_ens.core.spaces import Space
from carvana_ens.data.folds import make_folds
from carvana_ens.ensemble.lock_file import Lock, LockedMember, Sides, lock_differences, read_lock
from carvana_ens.errors import ProjectError
from carvana_ens.files import digest
from carvana_ens.store.schema import Provenance

SIDES = Sides("in A", "in B")
TABLE = make_folds("default", {"0a1": 1.0, "7f3": 2.0, "b22": 3.0, "c9d": 4.0}, 2)
MADE = Provenance(
    member={"name": "net", "model": "unet", "size": "48x64", "checkpoint": None},
    split="test",
    seen="fold table",
    plugin={"model": "unet", "distribution": "some-nets", "version": "1.2"},
    checkpoints={"0": "a" * 64, "1": "b" * 64},
    fold_table={"name": "default", "digest": TABLE.digest},
    averaging={"tta": "logits", "folds": "probabilities"},
)
LOCK = Lock(
    carvana_ens="1.0",
    split="test",
    images=3,
    ids_sha256="1" * 64,
    photos_sha256="1" * 64,
    members={"net": LockedMember(MADE, "uint8", "2" * 64)},
    fold_tables={"default": TABLE},
    weights={"net": 1},
    threshold=Fraction(1, 3),
    cut="threshold",
    space=Space("logit", {"net": logit_table(255)}),
    steps="largest",
    step_packages=("some-steps 2.0",),
    submission_sha256="3" * 64,
)


def changed(**values):
    return dataclasses.replace(LOCK, **values)


def member(**values):
    return changed(members={"net": LockedMember(dataclasses.replace(MADE, **values), "uint8", "2" * 64)})


def test_a_lock_comes_back_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    LOCK.write(path, {"when": "now"})
    found = read_lock(path)
    assert found.to_json() == LOCK.to_json()
    assert found.threshold == Fraction(1, 3)
    assert found.fold_tables == {"default": TABLE}
    assert found.members == LOCK.members
    assert lock_differences(found, LOCK, SIDES) == []


def test_when_and_where_are_not_compared(tmp_path):
    for name, host in (("a.json", "one"), ("b.json", "other")):
        LOCK.write(tmp_path / name, {"host": host})
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a.pop("made") != b.pop("made")
    assert a == b


MOVED = dataclasses.replace(TABLE, assignment={**TABLE.assignment, "0a1": 1, "d00": 0})


@pytest.mark.parametrize(
    ("other", "told", "maps"),
    [
        (
            member(plugin={**MADE.plugin, "version": "1.3"}),
            "member net, plugin: some-nets 1.2 in A, some-nets 1.3",
            True,
        ),
        (member(plugin=None), "member net, plugin: some-nets 1.2 in A, none in B", True),
        (
            member(checkpoints={"0": "a" * 64, "1": "c" * 64}),
            "member net, checkpoint of fold 1: sha256 bbbbbbbbbbbb... in A, sha256 cccccccccccc... in B",
            True,
        ),
        (
            member(checkpoints={"0": "a" * 64}),
            "member net, checkpoint of fold 1: sha256 bbbbbbbbbbbb... in A, none",
            True,
        ),
        (member(member={**MADE.member, "size": None}), "member net, size: 48x64 in A, none in B", True),
        (member(member={**MADE.member, "tta": ["hflip"]}), 'member net, tta: none in A, ["hflip"] in B', True),
        (member(member={**MADE.member, "checkpoint": "x"}), "member net, checkpoint: none in A, x in B", False),
        (member(fold_table=None), f"member net, fold table: sha256 {TABLE.digest[:12]}... in A, none in B", True),
        (member(seen="unknown"), "member net, seen: fold table in A, unknown in B", True),
        (changed(fold_tables={"default": MOVED}), "fold table default: '0a1', 'd00' are in other folds", True),
        (changed(weights={"net": 2}), "weight of net: 1 in A, 2 in B", False),
        (changed(threshold=Fraction("0.4")), "threshold: 1/3 in A, 2/5 in B", False),
        (changed(space=Space()), "blending space: logit in A, probability in B", False),
        (changed(space=Space("logit", {"net": logit_table(65535)})), "blending space, table of net: sha256", False),
        (changed(cut="expected-dice"), "cut: threshold in A, expected-dice in B", False),
        (changed(steps=""), "post-processing: largest in A, none in B", False),
        (
            changed(step_packages=("some-steps 2.1",)),
            "packages of its steps: some-steps 2.0 in A, some-steps 2.1",
            False,
        ),
        (changed(carvana_ens="1.1"), "carvana-ens: 1.0 in A, 1.1 in B", False),
        (changed(split="oof"), "split: test in A, oof in B", False),
        (changed(images=4), "images: 3 in A, 4 in B", False),
        (changed(photos_sha256=None), "ids of the photos: sha256 111111111111... in A, none in B", False),
        (changed(members={**LOCK.members, "b": LOCK.members["net"]}), "member b: only in B", True),
    ],
)
def test_one_difference_is_one_line(other, told, maps):
    (found,) = lock_differences(LOCK, other, SIDES)
    assert found.text.startswith(told)
    assert found.maps is maps
    assert len(lock_differences(other, LOCK, SIDES)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {}},
        {"weights": {"net": 0}},
        {"weights": {"net": 1.5}},
        {"weights": {"other": 1}},
        {"threshold": "0"},
        {"threshold": None},
        {"cut": "anywhere"},
        {"space": {"schema": 1, "kind": "logit", "members": {}}},
        {"steps": None},
        {"members": {"net": {"maps": "2", "dtype": "float32", "provenance": MADE.to_json()}}},
        {"members": {"net": {"maps": "2", "dtype": "uint8", "provenance": {"what": 1}}}},
        {"members": []},
        {"fold_tables": {"default": {**TABLE.to_json(), "seed": 9}}},
        {"more": 1},
    ],
)
def test_content_that_no_lock_has_is_refused(tmp_path, change):
    content = LOCK.to_json() | change
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema": 1, "lock": content, "sha256": digest(content), "made": {}}))
    with pytest.raises(ProjectError, match="is no lock of carvana-ens") as error:
        read_lock(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Lock)])
def test_content_that_is_missing_is_refused(tmp_path, key):
    content = LOCK.to_json()
    del content[key]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema": 1, "lock": content, "sha256": digest(content)}))
    with pytest.raises(ProjectError, match="is no lock of carvana-ens"):
        read_lock(path)
