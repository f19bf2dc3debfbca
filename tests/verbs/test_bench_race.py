"""How a contest of bench is held: turns, checks, ratios; and the bars taken from contests."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.types import Size
from carvana_ens.verbs.bench.bars import bars
from carvana_ens.verbs.bench.course import Options
from carvana_ens.verbs.bench.in_memory import LEAN_NUMPY, OUR_BLEND, OUR_TEXT, READ, READ_MASK
from carvana_ens.verbs.bench.race import FAST, Contest, Contestant, Heading, Row, race

HEADING = Heading("rle", "rle.mask", "numbers doubled", "masks")


def slow(seconds, answer=None):
    def run(item):
        time.sleep(seconds)
        return 2 * item if answer is None else answer

    return run


def test_contestants_take_turns_on_the_next_item():
    seen = []

    def contestant(name):
        def run(item):
            seen.append((name, item))
            time.sleep(FAST)  # too slow for more than one call a round
            return 2 * item

        return Contestant(name, run)

    contest = race(HEADING, [contestant("a"), contestant("b")], [1, 2, 3], lambda item: 2 * item, rounds=3, checked=2)
    checks, turns = seen[:4], seen[4:]
    assert checks == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert turns == [("a", 2), ("b", 3), ("a", 1), ("b", 2), ("a", 3), ("b", 1)]
    assert [row.runs for row in contest.rows] == [3, 3]


def test_fast_contestants_run_several_times_a_round():
    contest = race(HEADING, [Contestant("a", lambda item: 2 * item)], [1], lambda item: 2 * item, rounds=3)
    assert contest.rows[0].runs == 15


@pytest.mark.parametrize("wrong", [3, 4.0001, None, "4", np.array([4, 5])])
def test_a_wrong_answer_is_refused_before_anything_is_timed(wrong):
    runs = []

    def run(item):
        runs.append(item)
        return wrong

    right = Contestant("right", lambda item: 2 * item)
    with pytest.raises(CarvanaEnsError, match=r"planted gives another result .*numbers doubled; masks"):
        race(HEADING, [right, Contestant("planted", run)], [2, 3], lambda item: 2 * item, rounds=5)
    assert runs == [2]


def test_an_answer_that_is_wrong_on_a_later_item_is_refused():
    planted = Contestant("planted", lambda item: 4)
    with pytest.raises(CarvanaEnsError, match="planted"):
        race(HEADING, [planted], [2, 3], lambda item: 2 * item, rounds=1, checked=2)


@pytest.mark.parametrize(("off", "tolerance", "fits"), [(0, 0, True), (1e-7, 1e-6, True), (1e-5, 1e-6, False)])
def test_tolerance(off, tolerance, fits):
    exact = np.array([0.5, 0.25])
    contestants = [Contestant("float32", lambda item: exact + np.array([0, off]), tolerance=tolerance)]
    if fits:
        race(HEADING, contestants, [1], lambda item: exact, rounds=1)
    else:
        with pytest.raises(CarvanaEnsError, match="float32"):
            race(HEADING, contestants, [1], lambda item: exact, rounds=1)


def test_arrays_of_another_shape_are_not_equal():
    with pytest.raises(CarvanaEnsError, match="longer"):
        race(HEADING, [Contestant("longer", lambda item: np.ones(3))], [1], lambda item: np.ones(1), rounds=1)


def test_only_what_result_gives_is_compared_and_limits_are_not():
    packed = Contestant("packed", str, result=lambda text: 2 * int(text))
    limit = Contestant("limit", lambda item: "something else", "limit", None)
    contest = race(HEADING, [limit, packed], [1, 2], lambda item: 2 * item, rounds=1)
    assert [row.name for row in contest.rows] == ["limit", "packed"]


def test_ratios_are_to_the_first_limit_and_the_last_of_ours():
    contestants = [
        Contestant("limit", slow(0.002), "limit"),
        Contestant("another limit", slow(0.003), "limit"),
        Contestant("ours, old", slow(0.004), "ours"),
        Contestant("ours, new", slow(0.004), "ours", images=2),
        Contestant("peer", slow(0.006)),
    ]
    contest = race(HEADING, contestants, [1], lambda item: 2, rounds=1)
    by_name = {row.name: row for row in contest.rows}
    for row in contest.rows:
        assert row.of_limit == row.ms / by_name["limit"].ms
        assert row.of_ours == row.ms / by_name["ours, new"].ms
    assert by_name["ours, new"].ms >= 2  # 4 ms for two images
    assert by_name["peer"].ms >= 6
    assert by_name["peer"].cpu_ms < by_name["peer"].wall_ms  # it only slept


def test_before_is_done_before_every_run_and_not_timed():
    done = []
    contestant = Contestant("a", slow(0), before=lambda: (time.sleep(0.05), done.append(1)))
    contest = race(HEADING, [contestant], [1], lambda item: 2, rounds=2)
    assert len(done) == contest.rows[0].runs + 1
    assert contest.rows[0].ms < 50


def test_garbage_collection_is_as_it_was_also_after_an_error():
    def fails(item, times=[]):  # noqa: B006
        times.append(1)
        if len(times) == 2:
            assert not gc.isenabled()
            raise ValueError
        return 2 * item

    with pytest.raises(ValueError):  # noqa: PT011
        race(HEADING, [Contestant("a", fails)], [1], lambda item: 2, rounds=1)
    assert gc.isenabled()


def contest(name, kind, **times):
    rows = [Row(row, "peer", ms, 0, ms, ms, 1, 1, None, None, None) for row, ms in times.items()]
    return Contest("part", name, "title", kind, "wall", 1, rows, [])


CONTESTS = [
    contest("rle.mask", "masks", **{READ_MASK: 1.0, OUR_TEXT: 1.5, LEAN_NUMPY: 9.0}),
    contest("blend", "saturated", **{READ: 2.0, OUR_BLEND: 3.0}),
    contest("blend", "speckled", **{READ: 2.0, OUR_BLEND: 1.0}),
]


def test_bars_are_ratios_of_two_rows_judged_by_their_direction():
    found = {
        (bar.what.partition(",")[0], bar.kind, bar.bar): bar for bar in bars(CONTESTS, Options(), [Size(1280, 1918)])
    }
    assert {key: (bar.ratio, bar.met) for key, bar in found.items()} == {
        ("mask to text", "masks", 1.6): (1.5, True),
        ("mask to text", "masks", 5): (6.0, True),
        ("blend + cut + text", "saturated", 1.1): (1.5, False),
        ("blend + cut + text", "speckled", 1.1): (0.5, True),
    }


@pytest.mark.parametrize(
    ("members", "sizes"),
    [(7, [Size(1280, 1918)]), (8, [Size(1280, 1920)]), (8, [Size(1280, 1918), Size(48, 71)])],
)
def test_bars_of_another_size_or_number_of_members_are_not_judged(members, sizes):
    found = bars(CONTESTS, Options(members=members), sizes)
    assert len(found) == 4
    assert {bar.met for bar in found} == {None}
