from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from carvana_ens.data.folds import FoldTable, make_folds, read_folds, write_folds
from carvana_ens.data.ids import groups, photos_of_view, views
from carvana_ens.data.stratify import area_classes
from carvana_ens.errors import DataError, ProjectError, UsageError


def merged_bins(areas: pd.Series, least: int) -> pd.Series:
    """Classes as asanakoy's code finds them, with numpy's histogram and pandas' cut."""
    counts, edges = np.histogram(areas, bins=35)
    bounds, held, collected = [edges[0] - 1], [], 0
    for place, count in enumerate(counts):
        collected += count
        if collected >= least or place == len(counts) - 1:
            held.append(collected)
            bounds.append(edges[place + 1])
            collected = 0
    if held[-1] < least and len(held) > 1:
        del bounds[-2]
    return pd.cut(areas, bounds, labels=False)


def cars(seed: int, count: int = 318) -> dict[str, float]:
    """Areas with two humps, as small and large cars have."""
    rng = np.random.default_rng(seed)
    areas = np.where(rng.random(count) < 0.7, rng.normal(3e6, 4e5, count), rng.normal(4.4e6, 3e5, count))
    return {f"car{number:03d}": float(area) for number, area in enumerate(areas.round())}


@pytest.mark.parametrize("least", [2, 5, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_classes_are_those_of_the_solution(seed: int, least: int) -> None:
    areas = cars(seed)
    assert area_classes(areas, least) == merged_bins(pd.Series(areas), least).to_dict()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=80), st.integers(1, 12))
def test_classes_on_edges_and_of_few_groups(areas: list[int], least: int) -> None:
    mapping = {f"g{number}": float(area) for number, area in enumerate(areas)}
    assert area_classes(mapping, least) == merged_bins(pd.Series(mapping), least).to_dict()


def test_areas_that_differ_by_rounding_are_one_class() -> None:
    areas = {"a": 0.1 + 0.2, "b": 0.3, "c": 0.3}
    assert areas["a"] != areas["b"]
    assert area_classes(areas, 1) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_get_of_each_class_what_stratified_k_fold_gives(folds: int) -> None:
    areas = cars(3)
    classes = area_classes(areas, folds)
    table = make_folds("s", areas, folds, seed=1993, rule="histogram")
    ranked = sorted(areas, key=lambda group: (classes[group], group))
    truth = [classes[group] for group in ranked]
    split = StratifiedKFold(folds, shuffle=True, random_state=1993).split(np.zeros(len(ranked)), truth)
    expected = [Counter(truth[place] for place in out) for _, out in split]
    found = [Counter(classes[g] for g, fold in table.assignment.items() if fold == number) for number in range(folds)]
    assert found == expected
    sizes = Counter(table.assignment.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_seeds_draw_other_folds_of_the_same_classes() -> None:
    areas = cars(0, 60)
    tables = [make_folds("s", areas, 5, seed=seed, rule="histogram") for seed in range(4)]
    assert len({tuple(sorted(table.assignment.items())) for table in tables}) == 4
    turned = dict(reversed(areas.items()))
    assert make_folds("s", turned, 5, seed=2, rule="histogram") == tables[2]
    few = make_folds("s", dict.fromkeys("abcdefg", 1.0), 3, rule="histogram")  # as where this was written
    assert dict(few.assignment) == {"f": 0, "g": 1, "d": 2, "a": 0, "c": 1, "b": 2, "e": 0}


@pytest.mark.parametrize(("rule", "by_view"), [("histogram", None), ("rank", "05"), ("histogram", "05")])
def test_a_table_keeps_how_it_was_made(tmp_path: Path, rule: str, by_view: str | None) -> None:
    plain = make_folds("s", cars(0, 20), 4)
    table = make_folds("s", cars(0, 20), 4, rule=rule, by_view=by_view)
    assert (table.rule, table.by_view) == (rule, by_view)
    write_folds(tmp_path / "s.json", table)
    assert read_folds(tmp_path / "s.json") == table
    same = FoldTable("s", 4, None, 0, plain.assignment, rule, by_view)
    assert same.digest != plain.digest


def test_a_table_of_earlier_versions_reads_unchanged(tmp_path: Path) -> None:
    text = (
        '{"schema": 1, "name": "t", "folds": 2, "holdout": null, "seed": 0, "assignment": {"a": 0, "b": 1}, '
        '"digest": "DIGEST"}'
    )
    digest = "e658a0999e93c1155241fc5cadf2f024c2c6cfac3dccf6df0f4e0dde07f7efb3"
    (tmp_path / "t.json").write_text(text.replace("DIGEST", digest))
    table = read_folds(tmp_path / "t.json")
    assert table == FoldTable("t", 2, None, 0, {"a": 0, "b": 1})
    assert table.to_json() == json.loads(text.replace("DIGEST", digest))


def test_rules_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'area' is no rule .* rank, histogram"):
        make_folds("s", cars(0, 20), 4, rule="area")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="two folds or more"):
        make_folds("s", cars(0, 20), 1, 0.2, rule="histogram")
    for change in ({"rule": "area"}, {"rule": None}, {"by_view": 5}):
        (tmp_path / "s.json").write_text(json.dumps({**make_folds("s", cars(0, 20), 4).to_json(), **change}))
        with pytest.raises(ProjectError, match=r"s\.json: fold table 's' was made by rule"):
            read_folds(tmp_path / "s.json")


def test_views_are_what_stands_behind_the_group() -> None:
    ids = ["a_b_01", "c_02", "lone"]
    assert views(ids) == {"a_b_01": "01", "c_02": "02", "lone": ""}
    assert views(["x7-front"], "([a-z])[0-9]-.*") == {"x7-front": "7-front"}
    assert views(["2020.car.3"], r"[0-9]+\.(?P<group>[a-z]+)\.(.)") == {"2020.car.3": "3"}


def test_the_photo_of_a_view() -> None:
    ids = ["a_01", "a_02", "b_01", "b_02", "b_03"]
    assert photos_of_view("02", groups(ids), views(ids)) == {"a": "a_02", "b": "b_02"}
    with pytest.raises(DataError, match=r"1 groups have no photo of view '03', first 'a': .* '01', '02', '03'"):
        photos_of_view("03", groups(ids), views(ids))
    with pytest.raises(DataError, match=r"'a' has two photos of view '1': 'a_1' and 'a-1'"):
        photos_of_view("1", groups(["a_1", "a-1"], "(a).*"), views(["a_1", "a-1"], "(a).*"))
