from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carvana_ens.data.folds import NEVER, FoldTable, make_folds, read_folds, write_folds
from carvana_ens.data.ids import groups
from carvana_ens.errors import DataError, ProjectError, UsageError

AREAS = {f"car{number:02d}": float(area) for number, area in enumerate(np.random.default_rng(0).permutation(23))}
GROUPS = groups([f"{car}_{view:02d}" for car in AREAS for view in range(1, 4)])


def test_the_groups_in_the_order_of_their_area_go_to_the_folds_in_turn() -> None:
    table = make_folds("five", AREAS, 5)
    ranked = sorted(AREAS, key=AREAS.__getitem__)
    assert dict(table.assignment) == {group: rank % 5 for rank, group in enumerate(ranked)}
    assert (table.name, table.folds, table.holdout, table.seed) == ("five", 5, None, 0)


def test_ties_go_by_name_and_the_order_of_the_mapping_does_not_matter() -> None:
    areas = dict.fromkeys("dbac", 1.0)
    assert dict(make_folds("t", areas, 2).assignment) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert make_folds("t", dict(reversed(AREAS.items())), 4, seed=3) == make_folds("t", AREAS, 4, seed=3)


@given(st.integers(2, 12), st.integers(0, 1000), st.lists(st.floats(0, 1), min_size=12, max_size=60))
def test_any_seed_gives_folds_that_are_stratified_and_of_equal_size(folds: int, seed: int, areas: list[float]) -> None:
    mapping = {f"g{number}": area for number, area in enumerate(areas)}
    table = make_folds("t", mapping, folds, seed=seed)
    assert set(table.assignment) == set(mapping)
    ranked = sorted(mapping, key=lambda group: (mapping[group], group))
    for start in range(0, len(ranked), folds):  # K neighbours by area: never two in one fold
        block = [table.assignment[group] for group in ranked[start : start + folds]]
        assert sorted(block) == list(range(len(block)))


def test_seeds_differ_and_each_is_the_same_everywhere() -> None:
    tables = [make_folds("t", AREAS, 5, seed=seed) for seed in range(4)]
    assert len({tuple(sorted(table.assignment.items())) for table in tables}) == 4
    areas = {group: float(rank) for rank, group in enumerate("abcdefg")}
    few = make_folds("t", areas, 3, seed=1)  # as on the machine where this was written
    assert dict(few.assignment) == {"a": 0, "b": 1, "c": 2, "d": 0, "f": 1, "e": 2, "g": 0}
    held = make_folds("t", areas, 1, holdout=0.5, seed=1)
    assert {group for group, fold in held.assignment.items() if fold == 0} == {"a", "b", "d", "g"}


def test_held_out_and_trained_on_share_no_image_and_no_group() -> None:
    for table in (make_folds("k", AREAS, 5, seed=2), make_folds("h", AREAS, 1, holdout=0.3)):
        held = []
        for fold in range(table.folds):
            out, seen = table.held_out(fold, GROUPS), table.trained_on(fold, GROUPS)
            assert out
            assert sorted((*out, *seen)) == sorted(GROUPS)
            assert not {GROUPS[i] for i in out} & {GROUPS[i] for i in seen}
            assert list(out) == sorted(out)
            assert list(seen) == sorted(seen)
            held.extend(out)
        expected = Counter(i for i in GROUPS if table.assignment[GROUPS[i]] != NEVER)
        assert Counter(held) == expected  # each once


def test_the_largest_number_of_folds_leaves_one_group_out_each() -> None:
    table = make_folds("loo", AREAS, len(AREAS))
    assert sorted(table.assignment.values()) == list(range(len(AREAS)))


@pytest.mark.parametrize(
    ("groups_", "holdout", "count"),
    [(10, 0.2, 2), (23, 0.2, 5), (2, 0.5, 1), (3, 0.01, 1), (3, 0.99, 2), (318, 0.15, 48)],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_hold_out_takes_its_share_from_every_stretch_of_areas(
    groups_: int, holdout: float, count: int, seed: int
) -> None:
    areas = {f"g{number:03d}": float(number) for number in range(groups_)}
    table = make_folds("h", areas, 1, holdout=holdout, seed=seed)
    held = sorted(group for group, fold in table.assignment.items() if fold == 0)
    assert len(held) == count
    assert set(table.assignment.values()) == {0, NEVER}
    ranks = [int(group[1:]) for group in held]
    for index, rank in enumerate(ranks):
        assert index * groups_ // count <= rank < (index + 1) * groups_ // count
    assert table.holdout == holdout


def test_hold_outs_of_different_seeds_differ() -> None:
    tables = {tuple(sorted(make_folds("h", AREAS, 1, holdout=0.3, seed=seed).assignment.items())) for seed in range(5)}
    assert len(tables) == 5


@pytest.mark.parametrize(
    ("folds", "holdout", "reason"),
    [
        (0, None, "0 folds"),
        (-1, None, "-1 folds"),
        (24, None, r"24 folds .* 23 groups: ask for 1..23"),
        (5, 0.2, "cannot be meant together"),
        (1, None, "needs a hold-out"),
        (1, 0.0, "no share"),
        (1, 1.0, "no share"),
        (1, -0.2, "no share"),
        (1, float("nan"), "no share"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(folds: int, holdout: float | None, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make_folds("t", AREAS, folds, holdout)


def test_groups_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(UsageError, match="all photos are of one group"):
        make_folds("t", {"a": 1.0}, 1, 0.5)
    with pytest.raises(DataError, match="no groups"):
        make_folds("t", {}, 2)
    for area in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="area of group 'b'"):
            make_folds("t", {"a": 1.0, "b": area}, 2)


def test_a_group_that_the_table_does_not_have_is_named() -> None:
    table = make_folds("five", AREAS, 5)
    for select in (table.held_out, table.trained_on):
        with pytest.raises(DataError, match=r"group 'new' \(image 'new_01'\) is not in fold table 'five'.*make a new"):
            select(0, {**GROUPS, "new_01": "new"})
        for fold in (-1, 5):
            with pytest.raises(UsageError, match=f"no fold {fold}: it has 0..4"):
                select(fold, GROUPS)


PATTERN = r"(car[0-9])[0-9]_.*"


@pytest.mark.parametrize("rule", ["rank", "histogram"])
def test_the_group_pattern_is_kept_and_a_changed_one_named(tmp_path: Path, rule: str) -> None:
    table = make_folds("five", AREAS, 5, rule=rule, group_pattern=PATTERN)
    write_folds(tmp_path / "five.json", table)
    table = read_folds(tmp_path / "five.json")
    assert table.group_pattern == PATTERN
    table.check(GROUPS, "(.*)_.*")  # it fits all the same
    other = {**GROUPS, "x_01": "new", "y_01": "old"}
    head = r"fold table 'five' does not know group 'new' \(image 'x_01'; 2 groups in all\): "
    with pytest.raises(DataError, match=head + "photos were added after it was made"):
        table.check(other, PATTERN)
    for now, told in ((None, "the default group pattern"), ("(.)", re.escape("the group pattern '(.)'"))):
        changed = rf"it was made with the group pattern {re.escape(repr(PATTERN))}, now there is {told}; change it back"
        with pytest.raises(DataError, match=head + changed):
            table.check(other, now)
    plain = make_folds("five", AREAS, 5, rule=rule)
    assert plain.digest != table.digest
    assert "group_pattern" not in plain.to_json()  # tables from before patterns were kept have the same digest
    with pytest.raises(
        DataError, match=r"made with the default group pattern, now there is the group pattern '\(\.\)'"
    ):
        plain.check(other, "(.)")


@pytest.mark.parametrize(("folds", "holdout"), [(5, None), (1, 0.2)])
def test_a_table_comes_back_from_its_file(tmp_path: Path, folds: int, holdout: float | None) -> None:
    table = make_folds("t", {**AREAS, "véhicule": 0.5}, folds, holdout, seed=3)
    path = tmp_path / "folds" / "t.json"
    write_folds(path, table)
    again = read_folds(path)
    assert again == table
    assert again.digest == table.digest
    assert len(table.digest) == 64


def test_the_digest_sees_everything_but_the_order_of_the_groups() -> None:
    table = make_folds("t", AREAS, 5)
    turned = dict(reversed(table.assignment.items()))
    assert FoldTable("t", 5, None, 0, turned).digest == table.digest
    moved = {**table.assignment, "car00": (table.assignment["car00"] + 1) % 5}
    others = [
        FoldTable("u", 5, None, 0, table.assignment),
        FoldTable("t", 6, None, 0, table.assignment),
        FoldTable("t", 5, 0.2, 0, table.assignment),
        FoldTable("t", 5, None, 1, table.assignment),
        FoldTable("t", 5, None, 0, moved),
    ]
    assert len({table.digest, *(other.digest for other in others)}) == 6


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_folds(path, make_folds("t", AREAS, 5))
    document = json.loads(path.read_text())
    document["assignment"]["car00"] = (document["assignment"]["car00"] + 1) % 5
    path.write_text(json.dumps(document))
    with pytest.raises(ProjectError, match=r"t\.json: the fold table 't' was edited after it was made"):
        read_folds(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": None}, "schema None"),
        ({"name": 5}, "needs name"),
        ({"folds": 0}, "needs name, folds"),
        ({"folds": True}, "needs name, folds"),
        ({"seed": "0"}, "seed"),
        ({"holdout": "0.2"}, "hold-out"),
        ({"assignment": {"car00": 5}}, "assignment"),
        ({"assignment": {"car00": "1"}}, "assignment"),
        ({"assignment": []}, "assignment"),
        ({"digest": None}, "edited"),
    ],
)
def test_a_file_that_is_no_fold_table_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**make_folds("t", AREAS, 5).to_json(), **change}))
    with pytest.raises(ProjectError, match=reason):
        read_folds(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ProjectError, match=r"t\.json"):
        read_folds(tmp_path / "t.json")
    with pytest.raises(ProjectError, match="cannot be read"):
        read_folds(tmp_path / "none.json")
