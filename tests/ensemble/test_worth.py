"""What an ensemble is worth: planted members whose worth is known."""

from __future__ import annotations

import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.data.folds import FoldTable
from carvana_ens.ensemble import kept_searches, searched
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.honest import nested
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.searched import SearchedPixels
from carvana_ens.ensemble.worth import honest_folds, member_worth, subset_score, worth
from carvana_ens.types import Size

Memory = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["Memory"]
SIZE = Size(12, 20)
IDS = [f"{car}_{view}" for car in "abcdefghij" for view in (1, 2)]
GROUPS = {image_id: image_id[0] for image_id in IDS}
HALF = Fraction(1, 2)


def judged(found, folds):
    """What ``worth`` says of a search beside equal weights and the best single member."""
    return worth(
        *(nested(found.search(how), found.score, GROUPS, folds) for how in (None, "equal", "best single")), GROUPS
    )


@pytest.fixture(scope="module")
def planted():
    """Members top and bottom are right in their half and err in the other; twin is top again; poor is noise."""
    rng = np.random.default_rng(5)
    y, x = np.indices(SIZE)
    truth, maps = {}, {name: {} for name in ("top", "bottom", "twin", "poor")}
    for image_id in IDS:
        truth[image_id] = (((y - 6) / rng.uniform(3, 5)) ** 2 + ((x - 10) / rng.uniform(5, 8)) ** 2) <= 1
        good = np.where(truth[image_id], 250, 5)
        wrong = np.where(rng.random(SIZE) < 0.2, np.where(truth[image_id], 100, 155), good)
        maps["top"][image_id] = np.where(y < 6, good, wrong).astype(np.uint8)
        maps["bottom"][image_id] = np.where(y >= 6, good, wrong).astype(np.uint8)
        maps["twin"][image_id] = maps["top"][image_id]
        maps["poor"][image_id] = rng.integers(0, 256, SIZE).astype(np.uint8)
    return truth, maps


def pixels(planted, *names):
    truth, maps = planted
    return keep_disputed(
        [Memory(maps[name]) for name in names], IDS, lambda i, _: mask_bits(truth[i]), HALF, HALF, threads=1
    )


def test_complementary_members_are_worth_more_than_the_best_single_one(planted):
    names = ("top", "bottom", "poor")
    found = SearchedPixels(pixels(planted, *names), names)
    folds = honest_folds(GROUPS, [])
    value = judged(found, folds)
    assert value.score.mean == pytest.approx(1.0, abs=1e-5)
    assert value.over_single.low > 0
    assert value.over_equal.low > 0  # the poor one spoils the mean
    members = member_worth(names, subset_score(found, value.honest, GROUPS, folds), GROUPS)
    assert members.buys["top"].low > 0
    assert members.buys["bottom"].low > 0
    assert members.buys["poor"].mean == 0
    assert list(members.could_go) == ["poor"]


def test_one_of_two_twins_could_go(planted):
    names = ("top", "bottom", "twin")
    found = SearchedPixels(pixels(planted, *names), names)
    folds = honest_folds(GROUPS, [])
    score = subset_score(found, judged(found, folds).honest, GROUPS, folds)
    members = member_worth(names, score, GROUPS)
    assert len(members.could_go) == 1
    assert set(members.could_go) <= {"top", "twin"}


def test_members_without_weight_count_equally_where_nobody_else_is_left(planted):
    truth, maps = planted
    names = ("top", "bottom", "poor")
    found = SearchedPixels(pixels(planted, *names), names)
    folds = honest_folds(GROUPS, [])
    value = judged(found, folds)
    assert all(choice.weights["poor"] == 0 for choice in value.honest.choices.values())
    scores = subset_score(found, value.honest, GROUPS, folds)(("poor",))
    for image_id in IDS:
        on = maps["poor"][image_id] >= 128
        dice = 2 * (on & truth[image_id]).sum() / (on.sum() + truth[image_id].sum())
        assert scores[image_id] == pytest.approx(dice, abs=1e-12)


def table(assignment, folds=2, name="default"):
    return FoldTable(name, folds, None, 0, assignment)


def test_folds_are_those_of_the_members_where_they_share_them():
    own = {car: number % 3 for number, car in enumerate("abcdefghijk")}
    assert honest_folds(GROUPS, [table(own, 3), table(own, 3)]) == {car: own[car] for car in "abcdefghij"}
    other = {car: number % 2 for number, car in enumerate("abcdefghij")}
    for tables in ([], [table(own, 3), table(other)], [table(dict.fromkeys("abcdefghij", 0), 1)]):
        dealt = honest_folds(GROUPS, tables, seed=3)
        assert sorted(dealt) == list("abcdefghij")
        assert sorted(dealt.values()) == sorted([0, 1, 2, 3, 4] * 2)
    assert honest_folds(dict.fromkeys(IDS, "one"), []) is None


def test_kept_searches_are_those_of_the_same_source_and_images(planted, tmp_path, monkeypatch):
    names = ("top", "bottom", "poor")
    kept = pixels(planted, *names)
    path = tmp_path / "searches.json"
    first = SearchedPixels(kept, names, kept=KeptSearches(path, "s")).found(IDS)
    some = SearchedPixels(kept, names, kept=KeptSearches(path, "s")).found(IDS[:8])
    with monkeypatch.context() as patch:
        patch.setattr(searched, "search", None)
        again = SearchedPixels(kept, names, kept=KeptSearches(path, "s"))
        assert again.found(IDS) == first
        assert again.found(IDS[:8]) == some
        with pytest.raises(TypeError):
            again.found(IDS[:6])
        with pytest.raises(TypeError):
            SearchedPixels(kept, names, kept=KeptSearches(path, "t")).found(IDS)
    path.write_text(path.read_text()[:-9])
    assert SearchedPixels(kept, names, kept=KeptSearches(path, "s")).found(IDS) == first


def test_searches_of_other_code_are_done_again(planted, tmp_path, monkeypatch):
    names = ("top", "bottom")
    path = tmp_path / "searches.json"
    first = SearchedPixels(pixels(planted, *names), names, kept=KeptSearches(path, "s")).found(IDS)
    assert KeptSearches(path, "s").get(IDS) == first
    rooms = [tmp_path / "one", tmp_path / "two"]
    for room in rooms:
        room.mkdir()
        (room / "part.py").write_text("x = 1\n")
    names = {kept_searches.code_of(rooms)}
    for room in rooms:
        (room / "part.py").write_text("x = 2\n")
        names.add(kept_searches.code_of(rooms))
    assert len(names) == 3
    monkeypatch.setattr(kept_searches, "search_code", names.pop)
    assert KeptSearches(path, "s").get(IDS) is None


def test_what_a_search_calls_is_what_its_code_is(planted):
    """All of ours that ran for a search lies in the rooms whose text names the state, or below them."""
    folders = {Path(room).name for room in kept_searches.ROOMS}
    code = Path(kept_searches.__file__).parents[1]
    seen = set()

    def watch(frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(code):
            seen.add(path.relative_to(code).parts[0])

    kept = pixels(planted, "top", "bottom")
    sys.setprofile(watch)
    try:
        SearchedPixels(kept, ("top", "bottom")).found(IDS)
    finally:
        sys.setprofile(None)
    assert {"core", "ensemble"} <= seen
    assert seen - folders <= {"engine", "types.py"}


def test_a_search_that_ran_out_of_time_is_not_kept(planted, tmp_path):
    names = ("top", "bottom", "poor")
    path = tmp_path / "searches.json"
    found = SearchedPixels(pixels(planted, *names), names, kept=KeptSearches(path, "s"), seconds=1e-9).found(IDS)
    assert not found.in_time
    assert not path.exists()
